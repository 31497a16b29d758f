import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from cxr.errors import DataError
from cxr.experiments.spread import COLUMNS, spread, summarize, t_interval

VALUES = np.array([0.81, 0.86, 0.79, 0.90, 0.84])


def test_without_overlap_the_interval_is_that_of_the_one_sample_t_test():
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    np.testing.assert_allclose(t_interval(VALUES, 0.0), (expected.low, expected.high), rtol=1e-12)


def test_overlap_widens_it_by_the_variance_of_nadeau_and_bengio():
    scale = stats.tstd(VALUES) * math.sqrt(1 / 5 + 1 / 4)
    expected = stats.t.interval(0.95, df=4, loc=np.mean(VALUES), scale=scale)
    np.testing.assert_allclose(t_interval(VALUES, 1 / 4), expected, rtol=1e-12)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.floats(0, 1))
def test_laws_of_a_spread(values, overlap):
    assume(np.ptp(values) > 0)
    told = spread(np.array(values), overlap)
    assert tuple(told) == COLUMNS
    assert told["low"] <= told["mean"] <= told["high"]
    assert told["min"] - 1e-12 <= told["mean"] <= told["max"] + 1e-12
    assert told["sd"] == pytest.approx(np.std(values, ddof=1))
    assert spread(np.array(values), 0.0)["high"] <= told["high"]


@pytest.mark.parametrize(
    ("values", "runs", "unknown"),
    [
        ([np.nan, np.nan], 0, set(COLUMNS[1:])),
        ([np.nan, 0.5], 1, {"sd", "low", "high"}),
        ([0.4, np.nan, 0.6], 2, set()),
        ([0.5, 0.5], 2, {"low", "high"}),
    ],
    ids=["none", "one", "two", "equal ones"],
)
def test_what_cannot_be_said_of_so_few_is_nan(values, runs, unknown):
    told = spread(np.array(values), 0.0)
    assert told["runs"] == runs
    assert {name for name, value in told.items() if math.isnan(value)} == unknown


@pytest.fixture
def summary():
    metrics = {
        "seed_0": {"val/auroc": 0.9, "test/auroc": 0.7, "test/recall/covid": None},
        "seed_1": {"val/auroc": 0.9, "test/auroc": 0.9, "test/recall/covid": 1.0},
    }
    return summarize(metrics, 0.0, ["a note"])


def test_test_metrics_of_all_runs_are_summarized(summary):
    assert summary.table.index.tolist() == ["test/auroc", "test/recall/covid"]
    assert summary.table.loc["test/auroc", ["runs", "mean", "min", "max"]].tolist() == pytest.approx([2, 0.8, 0.7, 0.9])
    assert summary.table.loc["test/recall/covid", "runs"] == 1


def test_an_interval_stays_within_what_a_metric_can_be():
    metrics = {"fold_0": {"test/auroc": 0.4, "test/mcc": -0.1}, "fold_1": {"test/auroc": 0.7, "test/mcc": 0.3}}
    table = summarize(metrics, 1.0, []).table
    assert table.loc["test/auroc", ["low", "high"]].tolist() == [0, 1]
    assert table.loc["test/mcc", ["low", "high"]].tolist() == [-1, 1]


def test_the_files_hold_every_number(summary, tmp_path):
    summary.write(tmp_path)
    table = pd.read_csv(tmp_path / "summary.csv", index_col="metric")
    pd.testing.assert_frame_equal(table, summary.table, check_names=False, check_dtype=False)
    runs = pd.read_csv(tmp_path / "runs.csv", index_col="run")
    pd.testing.assert_frame_equal(runs, summary.values, check_names=False)
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["notes"] == ["a note"]
    assert told["metrics"]["test/auroc"]["mean"] == pytest.approx(0.8)
    assert told["runs"]["seed_0"]["test/recall/covid"] is None


def test_a_folder_that_cannot_be_written_is_told(summary, tmp_path):
    with pytest.raises(DataError, match="summary.csv cannot be written"):
        summary.write(tmp_path / "gone")


def test_the_terminal_shows_headlines_with_their_spread(summary, capsys):
    Console(width=120).print(summary.to_table())
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[2].strip("┃").split("┃")] == [
        "metric", "mean", "sd", "low", "high", "min", "max",
    ]  # fmt: skip
    (row,) = (line for line in lines if "auroc" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][:3] == ["auroc", "0.800", "0.141"]
    assert not any("recall" in line for line in lines)
