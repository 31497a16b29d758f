import math

import pandas as pd
import pytest

from cxr.experiments.automl.leaderboard import Entry, rank, write_leaderboard


def entry(name, auroc, seconds, family="svm", low=0.1):
    return Entry(name, family, {"auroc": (auroc, low, 0.99), "accuracy": (0.5, 0.4, 0.6)}, seconds, {"C": 1.0})


def test_the_best_comes_first_and_of_equal_ones_the_quicker_and_a_mixture_last():
    table = rank([entry("slow", 0.8, 9.0), entry("mix", 0.8, None, "mixture"), entry("quick", 0.8, 1.0),
                  entry("best", 0.9, 99.0), entry("vote", 0.8, None, "mixture")], "auroc")  # fmt: skip
    assert table["name"].tolist() == ["best", "quick", "slow", "mix", "vote"]
    assert table["rank"].tolist() == [1, 2, 3, 4, 5]
    assert rank([entry("a", 0.8, 1.0), entry("b", 0.9, 2.0)], "accuracy")["name"].tolist() == ["a", "b"]


def test_both_files_hold_every_line_with_its_interval(tmp_path):
    entries = [
        entry("svm_0", 0.9, 1.5),
        entry("knn_1", 0.7, 0.25, "knn", low=math.nan),
        entry("vote", 0.8, None, "mixture"),
    ]
    write_leaderboard(entries, "auroc", ["svm_1: <no kernel>"], tmp_path, 61.0)
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert table["name"].tolist() == ["svm_0", "vote", "knn_1"]
    assert table.loc[0, ["auroc", "auroc_low", "auroc_high", "seconds"]].tolist() == pytest.approx(
        [0.9, 0.1, 0.99, 1.5]
    )
    assert table.loc[0, "parameters"] == '{"C": 1.0}'
    page = (tmp_path / "leaderboard.html").read_text()
    assert "0.9000 (0.100 to 0.990)" in page
    assert "0.7000</td>" in page
    assert "2 families, 1 min 01 s" in page
    assert "svm_1: &lt;no kernel&gt;" in page
    assert "nan" not in page
