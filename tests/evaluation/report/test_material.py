import json
import shutil
from pathlib import Path

import pytest

from cxr.errors import DataError
from cxr.evaluation.ledger import FILE
from cxr.evaluation.predictions import write_predictions
from cxr.evaluation.report.material import ledger_path, read_run, read_tables

from .conftest import make_part


def test_a_run_gives_its_parts_in_order_with_baselines_beside_them(run):
    material = read_run(run)
    (question,) = material.questions
    assert material.name == "recipe 2026-01-01"
    assert list(question.parts) == ["train", "val", "test"]
    assert {part: len(table) for part, table in question.parts.items()} == {"train": 120, "val": 90, "test": 100}
    assert list(question.baselines) == ["random features"]
    assert len(question.baselines["random features"]["test"]) == 100
    assert material.versions == {"python": "3.11", "torch": "2.11"}
    assert len(material.history) == 3
    assert material.bundle == {}
    assert material.megabytes is None


def test_tables_per_study_are_no_question(run):
    shutil.copy(run / "predictions_test.csv", run / "predictions_test_study.csv")
    assert len(read_run(run).questions) == 1


def test_several_targets_are_several_questions(run):
    for path in run.glob("predictions_*"):
        path.unlink()
    for target in ("effusion", "lung_nodule"):
        names = [f"no {target}", target]
        write_predictions(make_part("test", 20, names), names, run / f"predictions_test_{target}.csv")
    questions = read_run(run).questions
    assert [question.name for question in questions] == ["effusion", "lung_nodule"]
    assert [question.class_names[1] for question in questions] == ["effusion", "lung_nodule"]


@pytest.mark.parametrize("absent", ["config.yaml", "metrics.json"])
def test_an_unfinished_run_is_told(run, absent):
    (run / absent).unlink()
    with pytest.raises(DataError, match="expected a finished run with config.yaml and metrics.json, but .* has not"):
        read_run(run)


def test_a_run_without_predictions_is_told(run):
    for path in run.glob("predictions_*"):
        path.unlink()
    with pytest.raises(DataError, match=r"expected tables predictions_<part>.csv in .*, but there are none"):
        read_run(run)


def test_tables_from_anywhere(tables):
    material = read_tables(tables["test"], tables["val"], None, None)
    assert material.name == "test"
    assert list(material.questions[0].parts) == ["val", "test"]
    assert material.questions[0].class_names == ["well", "ill"]


def test_tables_of_other_classes_are_refused(tables):
    tables["val"].with_suffix(".classes.json").write_text(json.dumps(["x", "y"]))
    with pytest.raises(DataError, match=r"expected the classes well, ill in every table, but .*val.csv has x, y"):
        read_tables(tables["test"], tables["val"], None, None)


@pytest.mark.parametrize(
    ("split_file", "expected"),
    [(None, "logs"), ("given/split.csv", "given"), ("logs/plans/cv/splits/fold_0.csv", "logs")],
)
def test_the_ledger_lies_beside_a_given_split_else_among_the_logs(split_file, expected):
    config = {"paths": {"log_dir": "logs"}, "data": {"split_file": split_file}}
    assert ledger_path(config) == Path(expected) / FILE
