import csv
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from cxr.errors import DataError
from cxr.evaluation.predictions import (
    aggregate_by_study,
    check_predictions,
    classes_path,
    has_studies,
    make_predictions,
    read_cells,
    read_predictions,
    write_predictions,
)

NAMES = ["Negative for Pneumonia", "Typical Appearance", "Atypical Appearance"]


def make_samples(n: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample_id": [f"s{i}" for i in range(n)],
            "image_path": [f"/images/{i}.png" for i in range(n)],
            "patient_id": [f"p{i // 2}" for i in range(n)],
            "study_id": [f"t{i // 2}" for i in range(n)],
            "label": [(i // 2) % 3 for i in range(n)],
            "sex": ["F", "M"] * (n // 2),
            "age": np.linspace(20, 80, n),
            "view_position": ["PA"] * (n - 1) + [None],
        }
    )


def make_table(n: int = 6, seed: int = 0, **options: object) -> pd.DataFrame:
    logits = np.random.default_rng(seed).normal(size=(n, 3), scale=3).astype(np.float32)
    return make_predictions(make_samples(n), logits, NAMES, split="test", run="run-1", **options)


def test_columns_and_values():
    samples = make_samples()
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    table = make_predictions(samples, logits, NAMES, split="val", run="r", fold=2)
    identity = ["sample_id", "patient_id", "study_id", "run", "fold", "split", "target"]
    scores = ["logit_0", "logit_1", "logit_2", "prob_0", "prob_1", "prob_2"]
    assert list(table) == [*identity, *scores, "sex", "age", "view_position"]
    assert table["target"].tolist() == samples["label"].tolist()
    assert set(table["fold"]) == {2}
    assert set(table["split"]) == {"val"}
    np.testing.assert_array_equal(table[scores[:3]].to_numpy(), logits)
    np.testing.assert_allclose(table[scores[3:]].to_numpy(), softmax(logits.astype(float), axis=1), rtol=1e-12)


def test_what_samples_do_not_know_is_null():
    samples = make_samples()[["sample_id", "label"]]
    table = make_predictions(samples, np.zeros((6, 3)), NAMES, split="test", run="r")
    assert table[["patient_id", "study_id", "fold"]].isna().all(axis=None)
    assert "sex" not in table


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=1, max_size=8))
def test_probabilities_sum_to_one_and_keep_the_order_of_logits(logits):
    samples = pd.DataFrame({"sample_id": range(len(logits)), "label": 0})
    table = make_predictions(samples, logits, NAMES, split="test", run="r")
    probs = table[["prob_0", "prob_1", "prob_2"]].to_numpy()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)
    best = np.take_along_axis(probs, np.argmax(logits, axis=1)[:, None], axis=1)[:, 0]
    np.testing.assert_array_equal(best, probs.max(axis=1))


def test_written_table_is_read_back(tmp_path):
    table = make_table(fold=1)
    write_predictions(table, NAMES, tmp_path / "predictions_test.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"predictions_test.csv", "predictions_test.classes.json"}
    again, names = read_predictions(tmp_path / "predictions_test.csv")
    assert names == NAMES
    pd.testing.assert_frame_equal(again, table, rtol=1e-15, atol=0)


def test_ids_that_look_like_numbers_or_missing_values_stay_text(tmp_path):
    table = make_table()
    table["patient_id"] = pd.array(["007", "NA", "null", "1e5", "nan", None], dtype="string")
    write_predictions(table, NAMES, tmp_path / "p.csv")
    again, _ = read_predictions(tmp_path / "p.csv")
    pd.testing.assert_series_equal(again["patient_id"], table["patient_id"])


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_text_comes_back_and_no_cell_starts_a_formula(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("table") / "p.csv"
    table = make_table()
    table["patient_id"] = table["manufacturer"] = pd.array([text] * len(table), dtype="string")
    write_predictions(table, NAMES, path)
    again, _ = read_predictions(path)
    pd.testing.assert_frame_equal(again, table)
    with path.open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.DictReader(file) for cell in (row["patient_id"], row["manufacturer"])]
    assert cells
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r\n"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "\t=1"])
def test_formulas_are_guarded(tmp_path, text):
    table = make_table()
    table["sample_id"] = pd.array([f"{text}{i}" for i in range(len(table))], dtype="string")
    write_predictions(table, NAMES, tmp_path / "p.csv")
    assert f'"\'{text}0"' in (tmp_path / "p.csv").read_text()
    assert read_predictions(tmp_path / "p.csv")[0]["sample_id"][0] == f"{text}0"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.csv"
    write_predictions(make_table(), NAMES, path)
    before = path.read_bytes()

    def full_disk(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_predictions(make_table(seed=1), NAMES, path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_logits_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"expected logits of shape \(6, 3\), got \(6, 2\)"):
        make_predictions(make_samples(), np.zeros((6, 2)), NAMES, split="test", run="r")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("error")
def test_logits_of_a_diverged_net_are_refused(value):
    logits = np.zeros((6, 3))
    logits[4, 1] = value
    with pytest.raises(DataError, match=r"expected a finite number in .*, got 1 rows without, first \['s4'\]"):
        make_predictions(make_samples(), logits, NAMES, split="test", run="r")


def spoil(column: str, value: object) -> pd.DataFrame:
    table = make_table().astype({column: object})
    table.loc[3, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (spoil("prob_1", np.nan), "expected a finite number in prob_1, got 1 rows without"),
        (spoil("logit_2", "high"), "expected a finite number in logit_2"),
        (spoil("target", 3), r"expected a target from 0 to 2, got 1 rows without, first \['s3'\]"),
        (spoil("target", 0.5), "expected a target from 0 to 2"),
        (spoil("fold", "first"), "expected a whole number or nothing in fold"),
        (spoil("prob_0", 0.99999), "expected probabilities from 0 that sum to 1, got 1 rows"),
        (spoil("sample_id", "s2"), "expected each sample once in a run and fold, got 1 rows without"),
        (make_table().drop(columns=["split", "logit_0"]), r"with the columns \['split', 'logit_0'\]"),
        (make_table().drop(columns=["prob_2"]), "expected one prob_ column for each class, got 2 such columns"),
    ],
    ids=["nan", "text", "target", "fraction", "fold", "sum", "twice", "columns", "classes"],
)
def test_tables_that_would_give_wrong_numbers_are_refused(tmp_path, table, message):
    with pytest.raises(DataError, match=message):
        write_predictions(table, NAMES, tmp_path / "out.csv")
    table.to_csv(tmp_path / "in.csv", index=False)
    classes_path(tmp_path / "in.csv").write_text(json.dumps(NAMES))
    with pytest.raises(DataError, match=message):
        read_predictions(tmp_path / "in.csv")


def test_negative_probabilities_are_refused():
    table = make_table()
    table.loc[0, ["prob_0", "prob_1", "prob_2"]] = [-0.5, 1.0, 0.5]
    with pytest.raises(DataError, match="expected probabilities from 0 that sum to 1"):
        check_predictions(table, NAMES)


@pytest.mark.parametrize("names", [["one"], ["a", "a", "b"]])
def test_class_names_are_two_or_more_and_different(names):
    with pytest.raises(DataError, match="expected two or more different class names"):
        check_predictions(make_table(), names)


def test_the_same_sample_in_two_runs_is_fine():
    two = pd.concat([make_table(), make_table(seed=1).assign(run="run-2")], ignore_index=True)
    check_predictions(two, NAMES)


def test_files_that_are_missing_or_broken_are_named(tmp_path):
    path = tmp_path / "p.csv"
    with pytest.raises(DataError, match=r"expected class names in .*p\.classes\.json, got no such file"):
        read_predictions(path)
    classes_path(path).write_text("{not json")
    with pytest.raises(DataError, match="expected a JSON list in"):
        read_predictions(path)
    classes_path(path).write_text('{"a": 1}')
    with pytest.raises(DataError, match="expected a JSON list of names in"):
        read_predictions(path)
    classes_path(path).write_text(json.dumps(NAMES))
    with pytest.raises(DataError, match=r"expected a predictions table at .*p\.csv, got no such file"):
        read_predictions(path)
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="expected a CSV table in"):
        read_predictions(path)


def test_a_study_is_the_mean_of_its_images():
    table = make_table()
    studies = aggregate_by_study(table)
    assert list(studies) == list(table)
    assert studies["sample_id"].tolist() == ["t0", "t1", "t2"]
    assert studies["target"].tolist() == [0, 1, 2]
    probs, logits = ["prob_0", "prob_1", "prob_2"], ["logit_0", "logit_1", "logit_2"]
    for i in range(3):
        mean = table.loc[2 * i : 2 * i + 1, probs].to_numpy().mean(axis=0)
        np.testing.assert_allclose(studies.loc[i, probs].to_numpy(dtype=float), mean)
    np.testing.assert_allclose(softmax(studies[logits].to_numpy(), axis=1), studies[probs].to_numpy())
    check_predictions(studies, NAMES)


def test_only_whole_and_alike_studies_are_studies():
    table = make_table()
    lone = table.assign(study_id=[f"study-{row}" for row in range(len(table))], target=1)
    shared = lone.assign(study_id="study", patient_id="patient")
    assert not has_studies(lone)
    assert has_studies(shared)
    assert not has_studies(shared.assign(target=np.arange(len(table)) % 2))
    assert not has_studies(shared.assign(patient_id=lone["study_id"]))
    assert not has_studies(shared.assign(study_id=pd.array([None] * len(table), dtype="string")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target;prob_a;prob_b\n0;0,5;0,5\n", "expected columns divided by commas in .*, got 'target;prob_a;prob_b'"),
        ("target\tprob_a\n0\t1\n", "expected columns divided by commas in .*; export it again so"),
        ("target,prob_a,prob_a\n0,1,0\n", "expected different columns in .*, got .'prob_a'. more than once"),
    ],
    ids=["semicolons", "tabs", "twice"],
)
def test_tables_that_are_read_as_others_are_refused(text, message, tmp_path):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_cells(tmp_path / "table.csv")


def test_empty_columns_at_the_end_do_no_harm(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbftarget,prob_a,,\r\n0,1,,\r\n")
    assert read_cells(tmp_path / "table.csv")[["target", "prob_a"]].to_numpy().tolist() == [[0, 1]]


def test_a_subgroup_is_kept_where_the_images_agree():
    studies = aggregate_by_study(make_table().assign(site=["a", "a", "a", "b", "b", "b"]))
    assert studies["sex"].isna().all()
    assert studies["view_position"].tolist() == ["PA"] * 3
    assert studies["site"].isna().tolist() == [False, True, False]


def test_images_without_a_study_stand_alone():
    table = make_table()
    table["study_id"] = pd.array(["t0", "t0", None, None, "t0", "t0"], dtype="string")
    table["target"], table["patient_id"] = 0, pd.array(["p"] * 6, dtype="string")
    studies = aggregate_by_study(table)
    assert studies["sample_id"].tolist() == ["t0", "s2", "s3"]
    np.testing.assert_allclose(studies["prob_0"][1:], table["prob_0"][2:4])


def test_runs_and_folds_are_not_mixed():
    two = pd.concat([make_table(fold=0), make_table(seed=1, fold=1)], ignore_index=True)
    assert aggregate_by_study(two)["fold"].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_probability_of_zero_keeps_finite_logits():
    table = make_table()
    table[["prob_0", "prob_1", "prob_2"]] = [1.0, 0.0, 0.0]
    check_predictions(aggregate_by_study(table), NAMES)


@pytest.mark.parametrize(("column", "value"), [("target", 2), ("patient_id", "p9")])
def test_images_of_a_study_that_disagree_are_refused(column, value):
    table = make_table()
    table.loc[0, column] = value
    with pytest.raises(DataError, match=rf"expected one {column} per study, got several in \['t0'\]"):
        aggregate_by_study(table)
