import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from cxr.errors import ConfigError, DataError
from cxr.evaluation import drawing
from cxr.evaluation.calibration import calibration_metrics
from cxr.evaluation.explain_page import write_page
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.operating_point import Youden, choose_operating_point, count_calls, predictive_values
from cxr.evaluation.predictions import read_predictions, target_and_probs, write_predictions
from cxr.evaluation.report.collect import Options, collect
from cxr.evaluation.report.decisions import choose_points, rule_of
from cxr.evaluation.report.figures import LONGEST_NAME, shorten_names
from cxr.evaluation.report.material import read_run, read_tables
from cxr.evaluation.report.page import write_report

from ..test_explain_page import FACTS, LOCALISATION, SANITY
from .conftest import NAMES, make_part, write_run

LOADS = re.compile(r"(?:src|href|action|data|poster|srcset)\s*=\s*[\"']?([^\"'\s>]+)|url\(([^)]*)\)|@import\s+(\S+)")
SECTIONS = (
    "numbers", "classes", "calibration", "operating", "selective", "baselines", "subgroups", "training", "model_card",
    "datasheet", "claim",
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run with its report."""
    run = write_run(tmp_path_factory.mktemp("runs") / "2026-01-01")
    write_report(read_run(run), run, Options(), "cxr evaluate RUN")
    return run


@pytest.fixture
def page(written):
    return (written / "report.html").read_text()


def texts(page):
    return [
        " ".join(unescape(re.sub(r"<[^>]+>", " ", cell)).split())
        for cell in re.findall(r"<td[^>]*>(.*?)</td>", page, re.S)
    ]


def test_every_section_is_there_and_in_the_contents(page):
    for name in SECTIONS:
        assert f'id="{name}"' in page
        assert f'href="#{name}"' in page


def test_the_page_loads_nothing_and_runs_nothing(page):
    loaded = [next(filter(None, found)) for found in LOADS.findall(page)]
    assert loaded
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in loaded)
    assert "<script" not in page
    assert not re.search(r"https?://", page)


def test_numbers_are_those_of_the_tables(written, page):
    table, _ = read_predictions(written / "predictions_test.csv")
    found = classification_metrics(*target_and_probs(table), NAMES)
    report = json.loads((written / "metrics.json").read_text())["evaluation"]
    (test,) = [part for part in report["questions"][0]["parts"] if part["name"] == "test"]
    for name, value in found.items():
        assert test["metrics"][name]["value"] == pytest.approx(value, abs=1e-12)
        low, high = test["metrics"][name]["low"], test["metrics"][name]["high"]
        assert low <= value <= high
    cells = texts(page)
    at = cells.index("Accuracy")
    right = round(found["accuracy"] * 100)
    assert re.fullmatch(rf"{found['accuracy']:.3f} \d\.\d+ to \d\.\d+ \({right}/100\)", cells[at + 3])


def test_metrics_json_keeps_what_it_held(written):
    kept = json.loads((written / "metrics.json").read_text())
    assert kept["best"] == {"score": 0.9}
    assert kept["metrics"] == {"test/auroc": 0.9}


def test_the_operating_point_is_chosen_on_validation_and_applied_to_test(written):
    report = json.loads((written / "metrics.json").read_text())["evaluation"]
    (kept,) = [point for point in report["questions"][0]["operating_points"] if point["chosen"]]
    validation, _ = read_predictions(written / "predictions_val.csv")
    test, _ = read_predictions(written / "predictions_test.csv")
    called = validation["prob_1"] >= kept["threshold"]
    assert called[validation["target"] == 1].mean() >= 0.9
    called = test["prob_1"] >= kept["threshold"]
    assert kept["sensitivity"]["value"] == pytest.approx(called[test["target"] == 1].mean())
    assert kept["specificity"]["value"] == pytest.approx((~called[test["target"] == 0]).mean())


def test_predictive_values_at_a_prevalence(run):
    report = collect(read_run(run), Options(prevalence=0.01))
    (point,) = [point for point in report["questions"][0]["operating_points"] if point["chosen"]]
    sensitivity, specificity = point["sensitivity"]["value"], point["specificity"]["value"]
    expected = sensitivity * 0.01 / (sensitivity * 0.01 + (1 - specificity) * 0.99)
    assert point["ppv"]["value"] == pytest.approx(expected)
    assert point["ppv"]["low"] < expected < point["ppv"]["high"]


def test_predictive_values_where_one_class_is_absent(tables):
    table, _ = read_predictions(tables["test"])
    write_predictions(table[table["target"] == 1], NAMES, tables["test"])
    report = collect(read_tables(tables["test"], tables["val"], None, None), Options(prevalence=0.1))
    (point,) = [point for point in report["questions"][0]["operating_points"] if point["chosen"]]
    assert point["ppv"]["value"] is None
    assert point["sensitivity"]["value"] is not None


def test_intervals_of_abstention_take_patients_as_a_whole(tables):
    found = {}
    for groups in ("pairs", "alone"):
        table, _ = read_predictions(tables["test"])
        copies = [table.assign(sample_id=table["sample_id"] + f"-{copy}") for copy in range(4)]
        doubled = pd.concat(copies, ignore_index=True)
        if groups == "alone":
            doubled = doubled.assign(patient_id=doubled["sample_id"], study_id=doubled["sample_id"])
        write_predictions(doubled, NAMES, tables["test"])
        report = collect(read_tables(tables["test"], tables["val"], None, None), Options())
        found[groups] = report["questions"][0]["parts"][-1]["selective"]["coverage"]
        write_predictions(table, NAMES, tables["test"])
    assert found["pairs"]["value"] == found["alone"]["value"]
    widths = {name: interval["high"] - interval["low"] for name, interval in found.items()}
    assert widths["pairs"] > 1.5 * widths["alone"]


def test_groups_and_openings_are_shown(page):
    cells = texts(page)
    assert cells.count("sex") == 2
    assert "60-79" in cells
    assert re.search(r"<b>3</b>\s*<span>evaluations of this test part so far", page)


@pytest.mark.slow
def test_pictures_are_shown_by_kind(run):
    picture = np.zeros((4, 4), np.uint8)
    (run / "gallery").mkdir()
    for name in ("correct_01", "errors_01", "errors_02"):
        Image.fromarray(picture).save(run / "gallery" / f"{name}.png")
    page = write_report(read_run(run), run, Options()).read_text()
    gallery = page[page.index('id="gallery"') : page.index('id="training"')]
    assert gallery.count("<img") == 3
    assert gallery.index("Most certain errors") < gallery.index("Most certain, and correct")
    assert "Most uncertain" not in gallery
    assert 'href="#gallery"' in page


@pytest.mark.slow
def test_explanations_have_their_section(run):
    folder = run / "explain" / "test_gradcam"
    folder.mkdir(parents=True)
    write_page(folder, FACTS, [], LOCALISATION, SANITY)
    page = write_report(read_run(run), run, Options()).read_text()
    section = page[page.index('<section id="localisation">') : page.index('<section id="training">')]
    assert 'href="#localisation"' in page
    assert section.count("0.400 to 0.600") == 19
    assert "&lt;depend&gt;" in section


def test_names_are_escaped(run):
    names = ["well", "<script>alert(1)</script> & ill"]
    for part in ("train", "val", "test"):
        write_predictions(make_part(part, 40, names), names, run / f"predictions_{part}.csv")
    shutil.rmtree(run / "baselines")
    page = write_report(read_run(run), run, Options()).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; ill" in page


def test_a_lone_table_says_what_it_leaves_out(tmp_path):
    write_predictions(make_part("test", 60, patients=False), NAMES, tmp_path / "test.csv")
    page = write_report(read_tables(tmp_path / "test.csv", None, None, None), tmp_path / "out", Options()).read_text()
    assert "Without a validation table no probabilities are calibrated and no operating point chosen." in page
    assert "60 of 60 images of test name no patient: each counts as one of its own." in page
    assert 'id="operating"' not in page
    assert 'id="training"' not in page


def test_one_class_alone_is_told_and_not_measured(tmp_path):
    table = make_part("test", 40)
    write_predictions(table[table["target"] == 1], NAMES, tmp_path / "test.csv")
    report = collect(read_tables(tmp_path / "test.csv", None, None, None), Options())
    assert "test has no image of well: what needs one is not defined there." in report["omitted"]
    metrics = report["questions"][0]["parts"][0]["metrics"]
    assert metrics["auroc"]["value"] is None
    assert metrics["sensitivity"]["value"] is not None


def test_three_classes(tmp_path):
    names = ["a", "b", "c"]
    for part in ("val", "test"):
        write_predictions(make_part(part, 90, names), names, tmp_path / f"{part}.csv")
    material = read_tables(tmp_path / "test.csv", tmp_path / "val.csv", None, None)
    page = write_report(material, tmp_path / "out", Options()).read_text()
    assert 'id="operating"' in page
    assert 'alt="decision curve on test"' in page
    assert "means over the classes, each against the rest" in page
    assert "sensitivity at the operating point" not in page


@pytest.mark.parametrize("prevalence", [None, 0.05])
def test_of_three_classes_each_has_its_operating_point(prevalence, tmp_path):
    names = ["a", "b", "c"]
    tables = {part: make_part(part, 90, names, seed=seed) for seed, part in enumerate(("val", "test"))}
    for part, table in tables.items():
        write_predictions(table, names, tmp_path / f"{part}.csv")
    material = read_tables(tmp_path / "test.csv", tmp_path / "val.csv", None, None)
    rules = Options(rule="youden", prevalence=prevalence)
    points = collect(material, rules)["questions"][0]["operating_points"]
    assert [point["class"] for point in points if point["chosen"]] == names
    for k, point in enumerate(point for point in points if point["chosen"]):
        of_class = {part: (table["target"] == k, table[f"prob_{k}"]) for part, table in tables.items()}
        threshold = choose_operating_point(*of_class["val"], Youden(), positive_class=names[k]).threshold
        counts = count_calls(*of_class["test"], threshold)
        values = (counts.ppv, counts.npv)
        if prevalence is not None:
            values = predictive_values(counts.sensitivity, counts.specificity, prevalence)
        assert point["threshold"] == threshold
        assert point["sensitivity"]["value"] == pytest.approx(counts.sensitivity)
        assert point["specificity"]["value"] == pytest.approx(counts.specificity)
        assert (point["ppv"]["value"], point["npv"]["value"]) == pytest.approx(values)
        for share in (point[name] for name in ("ppv", "npv") if 0 < point[name]["value"] < 1):
            assert share["low"] < share["value"] < share["high"]


def test_a_class_that_validation_lacks_has_no_operating_point(tmp_path):
    names = ["a", "b", "c"]
    validation = make_part("val", 90, names)
    write_predictions(validation[validation["target"] != 2], names, tmp_path / "val.csv")
    write_predictions(make_part("test", 90, names), names, tmp_path / "test.csv")
    material = read_tables(tmp_path / "test.csv", tmp_path / "val.csv", None, None)
    assert list(choose_points(material.questions[0], "youden")) == ["a", "b"]


@pytest.mark.slow
def test_several_targets_have_their_sections_each(run):
    for path in run.glob("predictions_*"):
        path.unlink()
    for target in ("effusion", "nodule"):
        names = [f"no {target}", target]
        for part in ("val", "test"):
            write_predictions(make_part(part, 60, names), names, run / f"predictions_{part}_{target}.csv")
    page = write_report(read_run(run), run, Options()).read_text()
    for target in ("effusion", "nodule"):
        assert f'id="{target}_numbers"' in page
        assert 'alt="ROC curve on test"' in page


def test_an_unknown_subgroup_column_is_told(run):
    report = collect(read_run(run), Options(subgroups=["sex", "shoe size"]))
    assert any("shoe size" in sentence for sentence in report["omitted"])


def test_a_separated_validation_is_not_calibrated(tmp_path):
    table = make_part("val", 40)
    logits = np.where(table["target"].to_numpy()[:, None] == [0, 1], 9.0, -9.0)
    probs = 1 / (1 + np.exp(-2 * logits))
    perfect = table.assign(logit_0=logits[:, 0], logit_1=logits[:, 1], prob_0=probs[:, 0], prob_1=probs[:, 1])
    write_predictions(perfect, NAMES, tmp_path / "val.csv")
    write_predictions(make_part("test", 40), NAMES, tmp_path / "test.csv")
    report = collect(read_tables(tmp_path / "test.csv", tmp_path / "val.csv", None, None), Options())
    assert report["questions"][0]["scaling"] is None
    assert any("not calibrated" in sentence for sentence in report["omitted"])
    material = read_tables(tmp_path / "test.csv", tmp_path / "val.csv", None, None)
    page = write_report(material, tmp_path / "out", Options()).read_text()
    assert "No validation table" not in page


def test_what_is_not_defined_is_a_dash(tmp_path):
    table = make_part("test", 40)
    write_predictions(table[table["target"] == 1], NAMES, tmp_path / "test.csv")
    page = write_report(read_tables(tmp_path / "test.csv", None, None, None), tmp_path / "out", Options()).read_text()
    assert "–" in texts(page)
    assert "nan" not in texts(page)


def test_one_scaling_of_all_targets_is_that_of_the_run(run):
    for path in run.glob("predictions_*"):
        path.unlink()
    for seed, target in enumerate(("effusion", "nodule")):
        for part in ("val", "test"):
            table = make_part(part, 80, ["no", target], seed=seed)
            write_predictions(table, [f"no {target}", target], run / f"predictions_{part}_{target}.csv")
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"temperature": 1.5}))
    report = collect(read_run(run), Options())
    assert [question["scaling"]["temperature"] for question in report["questions"]] == [1.5, 1.5]


def test_calibration_is_also_that_of_the_probabilities_in_the_table(tmp_path):
    table = make_part("test", 80)
    prob = table["prob_1"] ** 2
    table = table.assign(prob_0=1 - prob, prob_1=prob)
    write_predictions(table, NAMES, tmp_path / "test.csv")
    report = collect(read_tables(tmp_path / "test.csv", None, None, None), Options())
    (_, told) = report["questions"][0]["parts"][0]["calibration"]
    expected = calibration_metrics(*target_and_probs(table), NAMES)
    assert told.pop("name") == "as the table gives them"
    assert {name: one["value"] for name, one in told.items()} == expected
    assert all(one["low"] <= one["value"] < one["high"] for one in told.values())


SCRIPTS = ["正常", "肺炎"]


def test_names_that_no_font_has_are_numbered_in_figures_and_told_on_the_page(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(drawing, "_drawable", lambda: frozenset(map(ord, "–−…≥")))
    for part in ("val", "test"):
        write_predictions(make_part(part, 80), SCRIPTS, tmp_path / f"{part}.csv")
    material = read_tables(tmp_path / "test.csv", tmp_path / "val.csv", None, None)
    page = write_report(material, tmp_path / "out", Options()).read_text()
    assert [f"{name} class {number} in figures" in texts(page) for number, name in enumerate(SCRIPTS, 1)] == [True] * 2
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


@pytest.mark.parametrize(
    ("rule", "bundled", "mark"),
    [("youden", True, "kept"), ("sensitivity >= 0.9", True, "asked for"), ("youden", False, "asked for")],
)
def test_only_what_the_bundle_holds_is_kept(rule, bundled, mark, run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"operating_point": "youden"}))
    material = read_run(run)
    assert rule_of(material) == "youden"
    bundle = {
        "operating_point": {"rule": "youden"},
        "extras": {},
        "net": {"name": "custom_cnn"},
        "preprocess": {
            "channels": 1, "size": [8, 8], "aspect": "pad", "normalizer": "unit", "low": 0, "high": 1
        },
    }  # fmt: skip
    material = replace(material, bundle=bundle, megabytes=1.0) if bundled else material
    page = write_report(material, run, Options(rule=rule)).read_text()
    assert re.findall(r'<span class="tag good">([^<]*)</span>', page) == [mark]


@pytest.mark.parametrize(
    ("ward", "why"), [("A", "holds one value only"), (None, "holds nothing")], ids=["one value", "nothing"]
)
def test_a_column_without_groups_is_told(ward, why, tmp_path):
    write_predictions(make_part("test", 60).assign(ward=ward), NAMES, tmp_path / "test.csv")
    report = collect(read_tables(tmp_path / "test.csv", None, None, None), Options(subgroups=["ward", "sex"]))
    assert f"The column ward of test {why}: no groups by it." in report["omitted"]


def test_studies_whose_images_differ_are_told_and_not_measured(tmp_path):
    table = make_part("test", 60)
    table.loc[0, "target"] = 1 - table.loc[0, "target"]
    write_predictions(table, NAMES, tmp_path / "test.csv")
    report = collect(read_tables(tmp_path / "test.csv", None, None, None), Options())
    assert report["questions"][0]["parts"][0]["studies"] is None
    assert "Images of one study differ in label or patient in test: nothing is told per study." in report["omitted"]


def test_long_names_are_cut_and_stay_different():
    names = ["short", "very " * 50 + "a", "very " * 50 + "b"]
    short = shorten_names(names)
    assert short[0] == "short"
    assert len(set(short)) == 3
    assert max(map(len, short)) <= LONGEST_NAME


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rule": "best"}, ConfigError, "expected an operating point by 'sensitivity >= 0.9'"),
        ({"prevalence": 1.5}, DataError, "expected a prevalence over 0 and under 1, got 1.5"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        Options(**options)


def test_a_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"expected to write the report to .*file, but got: .*; choose another --out"):
        write_report(read_run(run), tmp_path / "file", Options())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here")
def test_a_browser_shows_every_section_without_a_complaint(written, tmp_path):
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", f"file://{written / 'report.html'}"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    for name in SECTIONS:
        assert f'id="{name}"' in done.stdout


def test_intervals_do_not_depend_on_the_order_of_rows(run):
    first = collect(read_run(run), Options())
    table, _ = read_predictions(run / "predictions_test.csv")
    write_predictions(pd.DataFrame(table).sort_values("sample_id"), NAMES, run / "predictions_test.csv")
    again = collect(read_run(run), Options())
    value = [report["questions"][0]["parts"][-1]["metrics"]["auroc"] for report in (first, again)]
    assert value[0]["value"] == pytest.approx(value[1]["value"])
    assert value[0]["low"] == pytest.approx(value[1]["low"], abs=0.02)
