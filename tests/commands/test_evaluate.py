import json

import numpy as np
import pandas as pd
import pytest

from cxr.cli import main
from cxr.evaluation.report.material import Material

from ..evaluation.report.conftest import write_run

CLASSES = ["--classes", "well,ill"]


@pytest.fixture
def tables(tmp_path):
    """(validation, test): tables of a model from elsewhere, 60 images each."""
    draws = np.random.default_rng(0)
    for name in ("val", "test"):
        target = np.arange(60) % 2
        prob = 1 / (1 + np.exp(-draws.normal(3 * target - 1.5, 1.5)))
        table = pd.DataFrame({"target": np.where(target, "ill", "well"), "prob_ill": prob, "ward": target % 2})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path / "val.csv", tmp_path / "test.csv"


def test_a_model_from_elsewhere_gets_the_same_report(tables, tmp_path, capsys):
    validation, test = tables
    words = ["--validation", str(validation), "--classes", "well,ill", "--prevalence", "0.1"]
    assert main(["evaluate", str(test), *words, "--operating-point", "youden", "--subgroups", "ward"]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path}/test_report/report.html\n"
    report = json.loads((tmp_path / "test_report" / "metrics.json").read_text())["evaluation"]
    assert report["command"].startswith("cxr evaluate ")
    (question,) = report["questions"]
    assert [point["title"] for point in question["operating_points"] if point["chosen"]] == ["youden"]
    assert [part["name"] for part in question["parts"]] == ["val", "test"]
    assert [group["column"] for group in question["parts"][-1]["subgroups"]] == ["ward", "ward"]


def test_a_run_is_judged_by_its_own_rule_and_a_table_by_the_first(tables, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("cxr.commands.evaluate.write_report", lambda _, folder, options, __: asked.append(options.rule))
    monkeypatch.setattr(
        "cxr.commands.evaluate.read_run", lambda _: Material("a run", [], {"operating_point": "youden"})
    )
    for words in ([str(tmp_path)], [str(tmp_path), "--operating-point", "threshold 0.5"], [str(tables[1]), *CLASSES]):
        main(["evaluate", *words])
    assert asked == ["youden", "threshold 0.5", "sensitivity >= 0.9"]


@pytest.mark.slow
@pytest.mark.parametrize(("goal", "code", "told"), [
    ("test/accuracy >= 0.6", 0, "reached: test/accuracy >= 0.6, got 0."),
    ("test/accuracy.high <= 0.6", 1, "missed: test/accuracy.high <= 0.6, got 0."),
])  # fmt: skip
def test_the_exit_code_says_whether_all_goals_are_reached(goal, code, told, tables, capsys):
    assert main(["evaluate", str(tables[1]), *CLASSES, "--require", "test/auroc >= 0.5", "--require", goal]) == code
    report, first, second = capsys.readouterr().out.splitlines()
    assert report.startswith("report: ")
    assert first.startswith("reached: test/auroc >= 0.5, got 0.")
    assert second.startswith(told)


@pytest.mark.slow
def test_goals_of_a_run_may_be_for_the_epoch_and_the_time_of_its_best(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    words = ["--require", "best/epoch <= 2", "--require", "best/seconds <= 1.5", "--require", "best/score >= 0.9"]
    assert main(["evaluate", str(run), *words]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "reached: best/epoch <= 2, got 2",
        "missed: best/seconds <= 1.5, got 2",
        "reached: best/score >= 0.9, got 0.9",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.csv"], "error: expected a predictions table at none.csv, got no such file"),
        (["RUN"], "error: expected a finished run with config.yaml and metrics.json, but"),
        (["RUN", "--classes", "a,b"], "error: expected --validation, --train and --classes beside a table, but"),
        (["TEST", "--operating-point", "best"], "error: expected an operating point by 'sensitivity >= 0.9'"),
        (["TEST", "--prevalence", "7"], "error: expected a prevalence over 0 and under 1, got 7.0"),
        (["TEST", "--draws", "10", "--classes", "well,ill"], "error: expected "),
        (["TEST"], "error: expected the columns"),
        (["TEST", "--require", "good"], "error: expected a goal such as 'test/accuracy >= 0.85', "),
        (
            ["TEST", "--require", "f1 >= 1", "--classes", "well,ill"],
            "error: expected a goal for a number of the report",
        ),
    ],
)
def test_wrong_words_are_one_sentence(words, message, tables, tmp_path, capsys):
    places = {"RUN": str(tmp_path), "TEST": str(tables[1])}
    if words == ["TEST"]:
        pd.read_csv(tables[1]).rename(columns={"prob_ill": "prob_a"}).assign(prob_b=0.5).to_csv(tables[1], index=False)
        words = ["TEST", "--classes", "well,ill"]
    assert main(["evaluate", *(places.get(word, word) for word in words)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
