import numpy as np
import pandas as pd
import pytest

from cxr.evaluation.predictions import make_predictions, write_predictions
from cxr.evaluation.report.decisions import describe_abstention, describe_points
from cxr.evaluation.report.material import read_questions


def write_part(folder, class_names, name="val"):
    draws = np.random.default_rng(0)
    label = np.arange(60) % len(class_names)
    logits = draws.normal(size=(60, len(class_names))) + 2 * np.eye(len(class_names))[label]
    samples = pd.DataFrame({"sample_id": range(60), "label": label})
    write_predictions(
        make_predictions(samples, logits, class_names, "val", "run"), class_names, folder / f"predictions_{name}.csv"
    )


def test_with_two_classes_the_bundle_holds_the_point_itself(tmp_path):
    write_part(tmp_path, ["well", "ill"])
    point = describe_points(read_questions(tmp_path, ("val",)), "youden")
    assert (point["rule"], point["positive_class"], point["chosen_on"]) == ("youden", "ill", "val")


@pytest.mark.parametrize("names", [["a", "b", "c"], ["a", "b", "c", "d"]])
def test_with_more_classes_each_has_its_point(names, tmp_path):
    write_part(tmp_path, names)
    points = describe_points(read_questions(tmp_path, ("val",)), "youden")
    assert {name: point["positive_class"] for name, point in points.items()} == dict(zip(names, names, strict=True))


def test_with_several_targets_each_has_its_point(tmp_path):
    for target in ("effusion", "left side"):
        write_part(tmp_path, [f"no {target}", target], f"val_{target.replace(' ', '_')}")
    points = describe_points(read_questions(tmp_path, ("val",)), "youden")
    assert {name: point["positive_class"] for name, point in points.items()} == {
        "effusion": "effusion",
        "left side": "left side",
    }


def test_validation_of_one_class_alone_gives_no_point(tmp_path):
    write_part(tmp_path, ["well", "ill"])
    table = pd.read_csv(tmp_path / "predictions_val.csv")
    table[table["target"] == 1].to_csv(tmp_path / "predictions_val.csv", index=False)
    assert describe_points(read_questions(tmp_path, ("val",)), "youden") is None


@pytest.mark.parametrize("names", [["well", "ill"], ["a", "b", "c"]])
def test_the_confidence_keeps_its_promise_where_it_was_chosen(names, tmp_path):
    write_part(tmp_path, names)
    found = describe_abstention(read_questions(tmp_path, ("val",)))
    table = pd.read_csv(tmp_path / "predictions_val.csv")
    probs = table[[f"prob_{k}" for k in range(len(names))]].to_numpy()
    kept = probs.max(axis=1) >= found["threshold"]
    wrong = probs.argmax(axis=1) != table["target"]
    assert (found["kept"], found["errors"]) == (kept.sum(), (wrong & kept).sum())
    assert found["errors"] / found["kept"] <= 0.05


def test_several_targets_have_no_one_answer_to_abstain_from(tmp_path):
    write_part(tmp_path, ["no nodule", "nodule"], "val_nodule")
    assert describe_abstention(read_questions(tmp_path, ("val",))) is None
