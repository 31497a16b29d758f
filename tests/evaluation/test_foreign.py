import numpy as np
import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.evaluation.foreign import read_foreign
from cxr.evaluation.predictions import target_and_probs


def write(tmp_path, **columns):
    path = tmp_path / "other.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_targets_by_name_and_one_probability_are_enough(tmp_path):
    path = write(tmp_path, target=["sick", "well", "well"], prob_sick=[0.9, 0.2, 0.4])
    table, names = read_foreign(path, ["well", "sick"], "test")
    assert names == ["well", "sick"]
    assert table["target"].tolist() == [1, 0, 0]
    np.testing.assert_allclose(table["prob_0"], [0.1, 0.8, 0.6])
    np.testing.assert_allclose(np.exp(table["logit_1"]), [0.9, 0.2, 0.4])
    assert table["sample_id"].tolist() == ["row 0", "row 1", "row 2"]
    assert table["patient_id"].isna().all()
    assert set(table["split"]) == {"test"}
    assert set(table["run"]) == {"other"}


def test_class_names_are_those_of_the_columns(tmp_path):
    path = write(tmp_path, target=["b", "a"], prob_a=[0.5, 0.7], prob_b=[0.3, 0.2], prob_c=[0.2, 0.1], sex=["F", "M"])
    table, names = read_foreign(path, None, "test")
    assert names == ["a", "b", "c"]
    assert table["target"].tolist() == [1, 0]
    assert table["sex"].tolist() == ["F", "M"]


def test_class_names_of_a_sidecar(tmp_path):
    path = write(tmp_path, target=[0, 1], prob_0=[0.5, 0.7], prob_1=[0.5, 0.3])
    (tmp_path / "other.classes.json").write_text('["x", "y"]')
    assert read_foreign(path, None, "test")[1] == ["x", "y"]


def test_what_is_there_is_kept(tmp_path):
    path = write(
        tmp_path,
        sample_id=["007"],
        patient_id=["1"],
        target=[1],
        prob_0=[0.25],
        prob_1=[0.75],
        logit_0=[-1],
        logit_1=[0],
    )
    table, _ = read_foreign(path, ["x", "y"], "test")
    assert table.loc[0, ["sample_id", "patient_id", "logit_0"]].tolist() == ["007", "1", -1]


@pytest.mark.parametrize(
    "columns",
    [
        {"prob_sick": [0.9, 0.2], "prob_well": [0.1, 0.8]},
        {"prob_1": [0.9, 0.2], "prob_0": [0.1, 0.8]},
        {"prob_1": [0.9, 0.2]},
        {"prob_max": [0.9, 0.8], "prob_well": [0.1, 0.8], "prob_sick": [0.9, 0.2]},
    ],
    ids=["names", "numbers", "one number", "another score"],
)
def test_columns_in_any_order_are_those_of_their_classes(columns, tmp_path):
    table, _ = read_foreign(write(tmp_path, target=[1, 0], **columns), ["well", "sick"], "test")
    target, probs = target_and_probs(table)
    assert target.tolist() == [1, 0]
    np.testing.assert_allclose(probs, [[0.1, 0.9], [0.8, 0.2]])


def test_logits_by_class_name_are_taken(tmp_path):
    columns = {"prob_b": [0.4], "prob_a": [0.6], "logit_b": [-3.0], "logit_a": [5.0]}
    table, _ = read_foreign(write(tmp_path, target=["a"], **columns), ["a", "b"], "test")
    assert table[["logit_0", "logit_1"]].to_numpy().tolist() == [[5.0, -3.0]]


def test_a_logit_of_one_class_alone_is_left_out(tmp_path):
    path = write(tmp_path, target=[0], prob_a=[0.6], prob_b=[0.4], logit_a=[5.0])
    table, _ = read_foreign(path, ["a", "b"], "test")
    np.testing.assert_allclose(np.exp(table[["logit_0", "logit_1"]].to_numpy()), [[0.6, 0.4]])


@pytest.mark.parametrize("targets", [[1, 2, 3], [1.0, 2.0, 3.0], ["1", "2", "3"]])
def test_names_that_are_numbers_are_names(targets, tmp_path):
    probs = {f"prob_{name}": [1 / 3] * 3 for name in (1, 2, 3)}
    table, _ = read_foreign(write(tmp_path, target=targets, **probs), ["1", "2", "3"], "test")
    assert table["target"].tolist() == [0, 1, 2]


def test_numbered_columns_come_with_numbered_targets(tmp_path):
    probs = {f"prob_{k}": [1 / 3] * 2 for k in range(3)}
    table, _ = read_foreign(write(tmp_path, target=[1, 2], **probs), ["1", "2", "3"], "test")
    assert table["target"].tolist() == [1, 2]


def test_no_rows(tmp_path):
    with pytest.raises(DataError, match=r"expected at least one row in .*other.csv, got none"):
        read_foreign(write(tmp_path, target=[], prob_x=[], prob_y=[]), ["x", "y"], "test")


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"target": [0], "prob_0": [1], "prob_1": [0]}, None, "expected the class names of .*--classes"),
        ({"target": [0], "prob_x": [1]}, ["x", "y"], "expected the columns target, prob_x, prob_y, got target, prob_x"),
        ({"prob_x": [1], "prob_y": [0]}, ["x", "y"], "expected the columns target, prob_x, prob_y, got prob_x, prob_y"),
        ({"target": ["z"], "prob_x": [1], "prob_y": [0]}, ["x", "y"], "expected targets among the classes x, y, got z"),
        ({"target": [5], "prob_x": [1], "prob_y": [0]}, ["x", "y"], "expected a target from 0 to 1"),
        ({"target": [0], "prob_x": [0.7], "prob_y": [0.7]}, ["x", "y"], "probabilities from 0 that sum to 1"),
        ({"target": [0], "prob_x": [float("nan")], "prob_y": [0.7]}, ["x", "y"], "a finite number in prob_0"),
        (
            {"sample_id": ["a", "a"], "target": [0, 1], "prob_x": [0, 1], "prob_y": [1, 0]},
            ["x", "y"],
            "each sample once",
        ),
    ],
    ids=["no names", "a class without scores", "no target", "unknown name", "unknown index", "sum", "nan", "twice"],
)
def test_tables_that_would_give_wrong_numbers_are_refused(columns, names, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_foreign(write(tmp_path, **columns), names, "test")


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"expected a predictions table at .*none.csv, got no such file"):
        read_foreign(tmp_path / "none.csv", ["x", "y"], "test")
