import json
from types import SimpleNamespace

import pytest

from cxr.errors import ConfigError
from cxr.experiments import seeds
from cxr.experiments.seeds import Seeds
from cxr.training.run_folder import RunFolder


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"plan.seeds must be a list such as \[0, 1, 2\], but got \[\]"),
        (3, r"plan.seeds must be a list such as \[0, 1, 2\], but got 3"),
        ([0, -1], "each of plan.seeds must be a whole number >= 0, but got -1"),
        ([0, "one"], "each of plan.seeds must be a whole number >= 0, but got 'one'"),
        ([4, 0, 4], r"plan.seeds must name each seed once, but repeats \[4\]; name others"),
    ],
    ids=["empty", "no list", "negative", "no number", "repeated"],
)
def test_seeds_that_make_no_plan(values, message):
    with pytest.raises(ConfigError, match=message):
        Seeds(values)


def test_all_seeds_have_one_split(monkeypatch):
    cohort = SimpleNamespace(samples=object(), class_names=["a", "b"])
    monkeypatch.setattr(seeds, "read_cohort", lambda config: cohort)
    runs = Seeds([0, 7]).runs(None)
    assert [(run.name, run.overrides) for run in runs] == [("seed_0", ("seed=0",)), ("seed_7", ("seed=7",))]
    assert all(run.samples is cohort.samples for run in runs)


def test_the_table_of_several_seeds_shows_their_spread(tmp_path):
    runs = []
    for seed, auroc in enumerate((0.8, 0.9, 0.7)):
        (tmp_path / f"seed_{seed}").mkdir()
        (tmp_path / f"seed_{seed}" / "metrics.json").write_text(json.dumps({"metrics": {"test/auroc": auroc}}))
        runs.append(RunFolder(tmp_path / f"seed_{seed}"))
    row = Seeds([0, 1, 2]).reduce(runs, tmp_path).table.loc["test/auroc"]
    assert row[["runs", "mean", "sd", "min", "max"]].tolist() == pytest.approx([3, 0.8, 0.1, 0.7, 0.9])
    assert row["mean"] - row["low"] == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert row["high"] == 1
