import json
import re
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from cxr.data.cohort import Cohort
from cxr.errors import DataError
from cxr.evaluation.audit.audit import audit_cohort, audit_samples, held_out_rows, run_net, write_audit
from cxr.evaluation.audit.baselines import NetOutputs
from cxr.evaluation.audit.separation import PERMUTATIONS
from cxr.evaluation.audit.show import show_audit
from cxr.evaluation.audit.verdicts import ALPHA

CLASSES = ["normal", "pneumonia", "covid"]
TWO = ["healthy", "ill"]


def find(audit, name, scope="test", column=""):
    (row,) = [row for row in audit.rows if (row.name, row.scope, row.column) == (name, scope, column)]
    return row


def draw_images(table, confounded=False, size=64):
    """Noise with a bright marker: on the left or right by chance, or by class."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (len(table), size, size)).astype(np.uint8)
    right = table["label"].to_numpy() == 1 if confounded else rng.random(len(table)) < 0.5
    images[~right, 2:8, 2:8] = 255
    images[right, 2:8, -8:-2] = 255
    return images


def make_outputs(table, whole, covered, embeddings=None):
    """Outputs for the test rows from a probability of class 1 for each row of the table."""
    rows = held_out_rows(table)
    if embeddings is None:
        embeddings = np.random.default_rng(0).normal(size=(len(table), 5))
    columns = [np.stack([1 - p, p], axis=1)[rows] for p in (whole, covered)]
    return NetOutputs(rows, embeddings[rows], *columns)


def test_a_source_that_gives_one_class_away_is_found_on_the_test_part(covidx_like):
    audit = audit_samples(covidx_like, CLASSES)
    row = find(audit, "source")
    assert row.verdict == "shortcut"
    assert row.sentence == (
        "The source alone gives AUROC 1.00 (95% interval 0.97 to 1.00) for covid against the rest on the test split: "
        "a score there says little about disease."
    )
    assert row.separation.auroc == pytest.approx((1 + 2 * 0.83) / 3, abs=0.02)
    assert row in audit.shortcuts
    assert find(audit, "source", "all").verdict == "shortcut"


def test_a_table_without_a_shortcut_is_left_in_peace(make_table):
    audit = audit_samples(make_table(), TWO, images=draw_images(make_table()))
    assert audit.shortcuts == []
    assert {(row.name, row.scope, row.verdict) for row in audit.rows} == {
        *((name, scope, "none") for name in ("source", "metadata", "border", "corners") for scope in ("all", "test")),
        *(("thumbnail", scope, "reference") for scope in ("all", "test")),
    }
    assert find(audit, "source").sentence.startswith("The source alone gives AUROC 0.")
    assert "chance is not excluded (it gives 0." in find(audit, "source").sentence


def test_metadata_that_give_the_class_away_are_named(make_table):
    table = make_table()
    table["view_position"] = np.where(table["label"] == 1, "AP", table["view_position"])
    row = find(audit_samples(table, TWO), "metadata", "all")
    assert row.verdict == "shortcut"
    assert max(row.parts, key=row.parts.get) == "view_position"
    assert row.sentence.endswith(f"(most of it from view_position, {row.parts['view_position']:.2f} alone).")
    assert row.sentence.startswith("Metadata alone give AUROC ")
    assert row.uses == "the columns age, sex, view_position, manufacturer, rows, columns"


def test_other_metadata_can_be_named(make_table):
    table = make_table().assign(ward=lambda table: np.where(table["label"] == 1, "icu", "home"))
    assert find(audit_samples(table, TWO), "metadata").verdict == "none"
    row = find(audit_samples(table, TWO, columns=["ward"]), "metadata")
    assert row.verdict == "shortcut"
    assert row.sentence.endswith("a score there says little about disease.")


def test_a_trace_of_the_class_is_no_shortcut():
    rng = np.random.default_rng(0)
    label = np.arange(3000) % 2
    sex = np.where(rng.random(3000) < np.where(label == 1, 0.56, 0.46), "M", "F")
    row = find(audit_samples(pd.DataFrame({"label": label, "sex": sex}), TWO), "metadata", "all")
    assert row.verdict == "weak"
    assert row.sentence.endswith("more than chance, but too little to make a score.")


def test_many_images_of_a_patient_are_one_piece_of_evidence():
    rng = np.random.default_rng(0)
    patients = pd.DataFrame(
        {"label": np.arange(40) % 2, "source": rng.choice(list("abcdef"), 40), "patient_id": range(40)}
    )
    table = patients.loc[patients.index.repeat(50)].reset_index(drop=True)
    row = find(audit_samples(table, TWO), "source", "all")
    assert row.separation.patients == 40
    assert row.verdict == "none"


def test_of_many_patients_some_are_drawn(make_table, monkeypatch):
    monkeypatch.setattr("cxr.evaluation.audit.baselines.MOST", 100)
    found = {seed: find(audit_samples(make_table(), TWO, seed=seed), "source", "all").separation for seed in (0, 1)}
    assert found[0].patients == found[1].patients == 100
    assert found[0].auroc != found[1].auroc


def test_rows_without_a_patient_id_are_patients(covidx_like):
    table = covidx_like.assign(patient_id=None)
    assert find(audit_samples(table, CLASSES), "source").separation.patients == 120
    assert find(audit_samples(table.drop(columns="patient_id"), CLASSES), "source").separation.patients == 120


def test_a_marker_that_goes_with_the_class_is_found(make_table):
    table = make_table()
    audit = audit_samples(table, TWO, images=draw_images(table, confounded=True))
    assert {row.name for row in audit.shortcuts} == {"border", "corners"}
    assert find(audit, "corners").sentence.endswith(
        "a score there says little about disease, unless lungs reach into this region."
    )
    assert find(audit, "corners").sentence.startswith("The four corners of the image alone give AUROC ")
    assert find(audit, "thumbnail").verdict == "reference"


def test_what_cannot_be_measured_says_why(make_table):
    table = make_table()[["label", "split"]]
    audit = audit_samples(table, TWO)
    assert {row.verdict for row in audit.rows} == {"untestable"}
    assert find(audit, "source").sentence == (
        "Whether the source alone would give a class away on the test split was not measured: "
        "the table does not tell it."
    )
    few = make_table().assign(split="train")
    few.loc[few["label"].eq(0).idxmax(), "split"] = "test"
    outputs = make_outputs(few, np.full(len(few), 0.5), np.full(len(few), 0.5))
    audit = audit_samples(few, TWO, images=draw_images(few), net=outputs)
    for name in ("source", "metadata", "border", "corners", "lungs covered"):
        assert find(audit, name).sentence.endswith("it takes 10 patients of two classes at least.")


def test_a_class_of_few_patients_is_left_out(make_table):
    table = make_table(classes=3)
    rare = table[table["label"] == 2].drop_duplicates("group").head(9)
    row = find(audit_samples(pd.concat([table[table["label"] < 2], rare]), CLASSES), "source", "all")
    assert row.class_names == ("normal", "pneumonia")


def test_a_net_that_needs_no_lungs_is_found(make_table):
    table = make_table()
    rng = np.random.default_rng(1)
    whole = np.clip(0.2 + 0.6 * table["label"] + rng.normal(0, 0.2, len(table)), 0, 1).to_numpy()
    audit = audit_samples(table, TWO, net=make_outputs(table, whole, whole))
    assert [row.name for row in audit.shortcuts] == ["lungs covered"]
    assert find(audit, "net").verdict == "reference"
    assert "The net with the lungs covered gives AUROC 0.9" in find(audit, "lungs covered").sentence
    honest = audit_samples(table, TWO, net=make_outputs(table, whole, rng.random(len(table))))
    assert honest.shortcuts == []
    assert find(honest, "net").separation.auroc > 0.9


def test_the_probe_finds_what_embeddings_know(make_table):
    table = make_table()
    embeddings = np.random.default_rng(0).normal(size=(len(table), 8))
    embeddings[:, 3] += 4 * (table["view_position"] == "AP")
    half = np.full(len(table), 0.5)
    audit = audit_samples(table, TWO, net=make_outputs(table, half, half, embeddings))
    assert find(audit, "probe", column="view_position").verdict == "encoded"
    assert find(audit, "probe", column="view_position").sentence.startswith(
        "The net's embeddings tell view_position among images of one class (PA against AP: AUROC "
    )
    assert find(audit, "probe", column="sex").verdict == "none"
    assert find(audit, "probe", column="source").verdict == "none"
    assert audit.shortcuts == []


def test_the_probe_is_not_fooled_by_the_class(make_table):
    table = make_table(patients=400)
    other = np.random.default_rng(0).random(400)[table["group"]] < 0.25
    embeddings = table["label"].to_numpy()[:, None] + np.random.default_rng(1).normal(0, 0.1, (len(table), 3))
    half = np.full(len(table), 0.5)
    outputs = make_outputs(table, half, half, embeddings)
    table["source"] = np.where((table["label"] == 1) ^ other, "a", "b")
    assert find(audit_samples(table, TWO, net=outputs), "probe", column="source").verdict == "none"
    table["source"] = np.where(table["label"] == 1, "a", "b")
    row = find(audit_samples(table, TWO, net=outputs), "probe", column="source")
    assert row.verdict == "untestable"
    assert "no class has two values of source with enough patients" in row.sentence


def test_the_least_p_value_is_small_enough_for_every_row_that_can_alarm(make_table):
    table = make_table()
    half = np.full(len(table), 0.5)
    audit = audit_samples(table, TWO, images=draw_images(table), net=make_outputs(table, half, half))
    alarming = [row for row in audit.rows if row.name not in ("thumbnail", "net", "probe")]
    assert len(alarming) == 9
    assert len(alarming) / (PERMUTATIONS + 1) <= ALPHA


def test_the_result_is_json_without_ids(covidx_like, tmp_path):
    audit = audit_samples(covidx_like, CLASSES)
    path = write_audit(audit, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["audit.json"]
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"patient \d", text)
    read = json.loads(text)
    assert read["shortcuts"] == 2
    assert read["settings"] == {"permutations": 999, "seed": 0, "alpha": 0.01, "floor": 0.55}
    assert [row["sentence"] for row in read["rows"]] == [row.sentence for row in audit.rows]
    assert read["rows"][0]["separation"]["interval"] == list(audit.rows[0].separation.interval)


def test_the_audit_is_shown_with_every_sentence(covidx_like):
    audit = audit_samples(covidx_like, CLASSES)
    console = Console(file=StringIO(), width=120)
    show_audit(audit, console)
    shown = console.file.getvalue()
    assert all(f"- {row.sentence}" in shown for row in audit.rows)
    assert "shortcut" in shown
    assert "untestable" in shown


class Store:
    """An image store that has all images in memory, by path."""

    def __init__(self, images):
        self.images = images

    def open(self, paths, hashes):
        assert len(paths) == len(hashes)
        return self.images[[int(path) for path in paths]]


def test_a_cohort_is_audited_with_a_net_that_reads_the_marker(make_table):
    table = make_table()
    table["image_path"] = table["content_hash"] = [str(number) for number in range(len(table))]
    seen = []

    def net(stored):
        seen.append(len(stored))
        p = stored[:, 2:8, -8:-2].mean(axis=(1, 2)) / 255
        return stored[:, ::8, ::8].reshape(len(stored), -1).astype(np.float32), np.stack([1 - p, p], axis=1)

    audit = audit_cohort(Cohort(table, TWO, {}), Store(draw_images(table, confounded=True)), net)
    assert sum(seen) == 2 * (table["split"] == "test").sum()
    assert {"lungs covered", "border", "corners"} == {row.name for row in audit.shortcuts}
    blind = audit_cohort(Cohort(table, TWO, {}), Store(draw_images(table)), net)
    assert blind.shortcuts == []


def test_the_net_sees_covered_images(make_table):
    images = draw_images(make_table())
    received = []

    def net(stored):
        received.append(stored)
        return np.zeros((len(stored), 1)), np.full((len(stored), 2), 0.5)

    rows = np.arange(0, len(images), 2)
    run_net(net, images, rows)
    half = len(received) // 2
    whole, covered = np.concatenate(received[:half]), np.concatenate(received[half:])
    np.testing.assert_array_equal(whole, images[rows])
    assert (covered[:, 6:-6, 6:-6] == covered[0, 6:-6, 6:-6]).all()
    np.testing.assert_array_equal(covered[:, :6], whole[:, :6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": ["ward"]}, "expected the columns ward in the table of samples, got label, group"),
        ({"images": np.zeros((3, 8, 8), np.uint8)}, r"expected one image for each of \d+ samples, got 3"),
    ],
)
def test_what_does_not_fit_the_table_is_refused(make_table, change, message):
    with pytest.raises(DataError, match=message):
        audit_samples(make_table(), TWO, **change)


def test_rows_without_a_label_are_refused(make_table):
    table = make_table().astype({"label": "Int64"})
    table.loc[[3, 7], "label"] = pd.NA
    with pytest.raises(DataError, match="expected a label in every row, got 2 without; leave these rows out"):
        audit_samples(table, TWO)


@pytest.mark.parametrize(
    ("rows", "width", "value", "message"),
    [
        ([], 2, 0.5, "expected different positions from 0 to"),
        ([0, 0], 2, 0.5, "expected different positions from 0 to"),
        ([0, 10**6], 2, 0.5, "expected different positions from 0 to"),
        ([0, 1], 3, 0.5, r"expected outputs of shapes \[\(2, 2\), \(2, 2\), \(2,\)\], got \[\(2, 3\)"),
        ([0, 1], 2, np.nan, "expected finite outputs of the net, got NaN or infinity"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(make_table, rows, width, value, message):
    probs = np.full((len(rows), width), value)
    outputs = NetOutputs(np.array(rows, dtype=np.int64), np.zeros((len(rows), 4)), probs, probs)
    with pytest.raises(DataError, match=message):
        audit_samples(make_table(), TWO, net=outputs)
