import pytest
from jinja2 import UndefinedError

from cxr.pages import embed_picture, render


@pytest.fixture
def page(tmp_path):
    """page(body, **values): a page whose content is the template text."""

    def made(body, **values):
        template = tmp_path / "page.html"
        template.write_text('{% extends "base.html" %}{% block content %}' + body + "{% endblock %}")
        return render(template, **values)

    return made


def test_a_page_has_title_style_and_content(page):
    text = page("<p>{{ count | thousands }}</p>", title="A & B", count=5216)
    assert "<title>A &amp; B</title>" in text
    assert "<p>5,216</p>" in text
    assert "font:" in text.partition("<style>")[2].partition("</style>")[0]


def test_values_are_escaped_and_charts_are_not(page):
    text = page("{{ value }}{{ charts.swatch(0) }}", title="t", value="<script>'\"")
    assert "&lt;script&gt;&#39;&#34;" in text
    assert "<rect" in text


def test_a_picture_becomes_an_address(tmp_path):
    (tmp_path / "one.png").write_bytes(b"pixels")
    assert embed_picture(tmp_path / "one.png") == "data:image/png;base64,cGl4ZWxz"


def test_a_value_that_is_not_there_is_an_error(page):
    with pytest.raises(UndefinedError, match="nothing"):
        page("{{ nothing }}", title="t")
