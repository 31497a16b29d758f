import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cxr.errors import ConfigError, DataError
from cxr.evaluation.predictions import make_predictions, write_predictions
from cxr.experiments import sizes
from cxr.experiments.sizes import Sizes, take_share
from cxr.training.run_folder import RunFolder

NAMES = ["well", "ill"]


@pytest.fixture
def samples():
    """100 training images of 50 patients, 20 of validation and 20 of test."""
    splits = ["train"] * 100 + ["val"] * 20 + ["test"] * 20
    rows = np.arange(len(splits))
    labels = (rows // 2) % 4 == 0
    return pd.DataFrame({
        "sample_id": [f"s{row:03}" for row in rows], "patient_id": [f"p{row // 2}" for row in rows],
        "finding": np.where(labels, "ill", "well"), "label": labels.astype(int), "split": splits,
        "group": rows // 2,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (0.5, r"plan.shares must be a list such as \[0.25, 0.5, 1\], but got 0.5"),
        ([1.0], r"plan.shares must be a list such as \[0.25, 0.5, 1\], but got \[1.0\]"),
        ([0, 1], "each of plan.shares must be a number over 0 and at most 1, but got 0"),
        ([0.5, 1.5], "each of plan.shares must be a number over 0 and at most 1, but got 1.5"),
        ([0.5, True], "each of plan.shares must be a number over 0 and at most 1, but got True"),
        ([0.5, 0.25], "plan.shares must rise, but got"),
        ([0.5, 0.5], "plan.shares must rise, but got"),
    ],
)
def test_shares_that_make_no_plan(shares, message):
    with pytest.raises(ConfigError, match=message):
        Sizes(shares)


def test_parts_that_judge_stay_and_each_training_part_holds_those_before_it(samples, monkeypatch):
    monkeypatch.setattr(sizes, "read_cohort", lambda _: SimpleNamespace(samples=samples, class_names=NAMES))
    runs = Sizes([0.2, 0.5, 1]).runs(SimpleNamespace(seed=0))
    assert [run.name for run in runs] == ["train_20", "train_50", "train_100"]
    trained = [set(run.samples.loc[run.samples["split"] == "train", "sample_id"]) for run in runs]
    assert trained[0] < trained[1] < trained[2]
    for run in runs:
        judged = run.samples[run.samples["split"] != "train"]
        pd.testing.assert_frame_equal(judged, samples[samples["split"] != "train"])
    assert runs[0].samples.loc[runs[0].samples["split"] == "train", "label"].mean() == pytest.approx(0.26, abs=0.07)


def test_the_seed_decides_who_is_taken(samples):
    one, again, other = (set(take_share(samples, 0.3, seed)["sample_id"]) for seed in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize(
    ("shares", "error", "message"),
    [
        ([0.001, 1.0], DataError, "expected samples of every class in the training part of train_1, but class"),
        ([0.5, 0.501], ConfigError, "must give different sizes, but gives train_50, train_50"),
    ],
)
def test_shares_that_do_not_suit_the_data(shares, error, message, samples, monkeypatch):
    monkeypatch.setattr(sizes, "read_cohort", lambda _: SimpleNamespace(samples=samples, class_names=NAMES))
    with pytest.raises(error, match=message):
        Sizes(shares).runs(SimpleNamespace(seed=0))


@pytest.fixture
def folders(samples, tmp_path):
    """Finished runs of two sizes, the larger one with better answers."""
    test = samples[samples["split"] == "test"].reset_index(drop=True)
    for count, strength in ((20, 0.5), (100, 2.0)):
        (tmp_path / f"train_{count}").mkdir()
        score = np.random.default_rng(count).normal(strength * (2 * test["label"] - 1), 1)
        table = make_predictions(test, np.stack([-score, score], axis=1), NAMES, "test", f"train_{count}")
        write_predictions(table, NAMES, tmp_path / f"train_{count}" / "predictions_test.csv")
        auroc = roc_auc_score(table["target"], table["prob_1"])
        (tmp_path / f"train_{count}" / "metrics.json").write_text(json.dumps({"metrics": {"test/auroc": auroc}}))
    return [RunFolder(tmp_path / "train_20"), RunFolder(tmp_path / "train_100")]


def test_the_curve_has_the_headlines_of_each_size_with_intervals(folders, tmp_path):
    summary = Sizes([0.2, 1.0]).reduce(folders, tmp_path)
    curve = pd.read_csv(tmp_path / "learning_curve.csv")
    assert curve["images"].tolist() == [20, 100]
    assert curve["auroc"].tolist() == pytest.approx(summary.table.loc["test/auroc", ["train_20", "train_100"]].tolist())
    for folder, row in zip(folders, curve.itertuples(), strict=True):
        table = pd.read_csv(folder.root / "predictions_test.csv")
        called = table["prob_1"] > table["prob_0"]
        assert row.balanced_accuracy == pytest.approx(balanced_accuracy_score(table["target"], called))
        assert row.auroc_low < row.auroc < row.auroc_high or row.auroc == 1
    with Image.open(tmp_path / "learning_curve.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def test_several_targets_have_a_table_and_no_curve(folders, tmp_path):
    for folder in folders:
        (folder.root / "predictions_test.csv").rename(folder.root / "predictions_test_nodule.csv")
    assert Sizes([0.2, 1.0]).reduce(folders, tmp_path).table.loc["test/auroc", "runs"] == 2
    assert not (tmp_path / "learning_curve.csv").exists()
