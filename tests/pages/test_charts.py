import re
from xml.etree import ElementTree

import pytest

from cxr.pages import charts

SVG = "{http://www.w3.org/2000/svg}"


def parse(markup):
    return ElementTree.fromstring(str(markup).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def widths(strip):
    return [float(rect.get("width")) for rect in parse(strip).iter(f"{SVG}rect")]


def test_pieces_of_a_strip_are_shares_of_the_total():
    assert widths(charts.strip([1, 3], 8)) == [12.5, 37.5]
    assert [rect.get("x") for rect in parse(charts.strip([1, 3], 8)).iter(f"{SVG}rect")] == ["0.000", "12.500"]


def test_a_strip_of_nothing_is_empty():
    assert widths(charts.strip([0, 0], 0)) == [0, 0]


def heights(svg):
    paths = [path.get("d") for path in parse(svg).iter(f"{SVG}path") if path.get("fill") is not None]
    return [[float(y) for y in re.findall(r"L[\d.]+ ([\d.]+)H", path)] for path in paths]


def test_a_histogram_draws_shares_so_that_classes_of_any_size_compare():
    few, many = heights(charts.histogram({"few": [1, 3], "many": [100, 300]}, ["0", "1"], "age"))
    assert few == many
    assert few[1] < few[0], "up is less in SVG"


def test_the_highest_share_stands_at_the_axis():
    svg = charts.histogram({"a": [1, 3]}, ["low", "middle", "high"], "age")
    assert {"75%", "0", "low", "middle", "high", "age"} <= {text.text for text in parse(svg).iter(f"{SVG}text")}


@pytest.mark.parametrize("counts", [{"a": [0, 0]}, {}])
def test_a_histogram_of_nothing_is_flat(counts):
    assert {y for line in heights(charts.histogram(counts, ["0", "1"], "age")) for y in line} <= {156.0}


def test_texts_are_escaped():
    svg = str(charts.histogram({"<a>": [1]}, ["<b>", '"'], "<c>"))
    assert "&lt;b&gt;" in svg
    assert not re.search("<[abc]>", svg)


def test_colours_come_round():
    assert charts.colour(0) == charts.colour(len(charts.COLOURS)) != charts.colour(1)
    assert charts.colour(1) in charts.swatch(1)
