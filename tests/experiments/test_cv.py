import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, roc_auc_score

from cxr.errors import ConfigError, DataError
from cxr.evaluation.predictions import make_predictions, read_predictions, write_predictions
from cxr.experiments.cv import CrossValidation
from cxr.training.run_folder import RunFolder

CLASSES = ["normal", "covid"]
FRACTIONS = (0.6, 0.2, 0.2)


def make_pool(count, groups, seed=0, test=0.0, rare=0.4):
    """A cohort that is not divided; some groups have rows in the official test part."""
    rng = np.random.default_rng(seed)
    group = rng.integers(groups, size=count)
    labels = (np.random.default_rng(seed).random(groups) < rare).astype(int)[group]
    return pd.DataFrame({
        "sample_id": [f"s{number:04d}" for number in rng.permutation(count)],
        "finding": np.array(CLASSES)[labels],
        "label": labels,
        "group": group,
        "patient_id": [f"p{number}" for number in range(count)],
        "content_hash": [f"h{number}" for number in range(count)],
        "split": np.where(rng.random(count) < test, "test", "train"),
    })  # fmt: skip


@given(
    folds=st.integers(2, 5),
    repeats=st.integers(1, 2),
    test=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None)
def test_each_sample_is_tested_once_per_repeat_and_linked_ones_stay_together(folds, repeats, test, seed):
    samples = make_pool(200, 120, seed, test)
    official = samples["group"].isin(samples.loc[samples["split"] == "test", "group"])
    pool = samples[~official]
    assume(pool.groupby("label")["group"].nunique().reindex([0, 1], fill_value=0).min() >= 4 * folds)
    runs = CrossValidation(folds, repeats).divide(samples, CLASSES, FRACTIONS, seed)
    assert len(runs) == len({run.name for run in runs}) == folds * repeats
    tested = pd.concat([run.samples.loc[run.samples["split"] == "test", "sample_id"] for run in runs])
    assert sorted(tested) == sorted([*pool["sample_id"]] * repeats)
    for run in runs:
        assert set(run.samples["sample_id"]) == set(pool["sample_id"])
        assert run.samples.groupby("group")["split"].nunique().max() == 1
        assert set(run.samples["split"]) == {"train", "val", "test"}


def test_validation_has_its_share_of_what_is_left():
    for run in CrossValidation(5, 1).divide(make_pool(500, 500), CLASSES, (0.6, 0.2, 0.2), 0):
        sizes = run.samples["split"].value_counts()
        assert sizes["val"] / (sizes["val"] + sizes["train"]) == pytest.approx(0.25, abs=0.02)


def test_runs_are_named_by_fold_and_repeat():
    samples = make_pool(100, 100)
    names = [run.name for run in CrossValidation(2, 1).divide(samples, CLASSES, FRACTIONS, 0)]
    assert names == ["fold_0", "fold_1"]
    names = [run.name for run in CrossValidation(2, 2).divide(samples, CLASSES, FRACTIONS, 0)]
    assert names == ["repeat_0_fold_0", "repeat_0_fold_1", "repeat_1_fold_0", "repeat_1_fold_1"]


def test_the_same_seed_gives_the_same_folds_and_another_others():
    samples = make_pool(100, 100)
    first, again, other = (CrossValidation(3, 1).divide(samples, CLASSES, FRACTIONS, seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first[0].samples, again[0].samples)
    assert (first[0].samples["split"] != other[0].samples["split"]).any()


@pytest.mark.parametrize(
    ("folds", "repeats", "message"),
    [
        (1, 1, "plan.folds must be a whole number >= 2, but got 1"),
        ("many", 1, "plan.folds must be a whole number >= 2, but got 'many'"),
        (2, 0, "plan.repeats must be a whole number >= 1, but got 0"),
    ],
)
def test_numbers_that_make_no_cross_validation(folds, repeats, message):
    with pytest.raises(ConfigError, match=message):
        CrossValidation(folds, repeats)


def test_more_folds_than_patients_of_the_rarest_class():
    samples = make_pool(60, 60)
    samples["label"] = [0] * 54 + [1] * 6
    samples["finding"] = np.array(CLASSES)[samples["label"]]
    samples["group"] = [*range(54), 54, 54, 54, 55, 55, 56]
    message = "plan.folds=5 must not exceed the patients of the rarest class, but covid has 3; ask for fewer folds"
    with pytest.raises(ConfigError, match=message):
        CrossValidation(5, 1).divide(samples, CLASSES, FRACTIONS, 0)


def test_a_part_without_a_class_is_told_with_its_fold():
    samples = make_pool(60, 60)
    samples["label"] = [0] * 58 + [1] * 2
    samples["finding"] = np.array(CLASSES)[samples["label"]]
    samples["group"] = range(60)
    with pytest.raises(DataError, match=r"every class in the part \w+ of fold_\d, but class covid has none"):
        CrossValidation(2, 1).divide(samples, CLASSES, FRACTIONS, 0)


def test_a_target_may_be_missing_in_a_fold():
    samples = make_pool(60, 60).drop(columns="label").assign(target_mass=[1.0] * 2 + [0.0] * 58, target_edema=1.0)
    samples["finding"] = "edema"
    assert len(CrossValidation(3, 1).divide(samples, ["mass", "edema"], FRACTIONS, 0)) == 3


def write_run(folder, rows, seed, *, tables=("test",), studies=None):
    """A finished run whose scores tell the truth half-way."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    metrics = {"val/auroc": 0.5}
    for name in tables:
        label = rng.permutation(np.arange(len(rows)) % 2)
        study = pd.array([None] * len(rows), dtype="string") if studies is None else studies
        samples = pd.DataFrame({"sample_id": rows, "label": label, "patient_id": rows, "study_id": study})
        logits = rng.normal(label[:, None] * np.array([[-0.8, 0.8]]), 1.0)
        write_predictions(
            make_predictions(samples, logits, CLASSES, "test", folder.name), CLASSES, folder / f"predictions_{name}.csv"
        )
        metrics |= {f"{name}/auroc": roc_auc_score(label, logits[:, 1] - logits[:, 0])}
    metrics.setdefault("test/auroc", float(np.mean([metrics[f"{name}/auroc"] for name in tables])))
    (folder / "metrics.json").write_text(json.dumps({"metrics": metrics}))
    return RunFolder(folder)


def test_folds_are_pooled_and_their_spread_stands_beside(tmp_path):
    runs = [write_run(tmp_path / f"fold_{k}", [f"s{k}-{n}" for n in range(30)], seed=k) for k in range(3)]
    summary = CrossValidation(3, 1).reduce(runs, tmp_path)
    pooled, class_names = read_predictions(tmp_path / "predictions_oof.csv")
    assert class_names == CLASSES
    assert pooled["fold"].tolist() == [0] * 30 + [1] * 30 + [2] * 30
    assert set(pooled["run"]) == {"fold_0", "fold_1", "fold_2"}
    row = summary.table.loc["test/auroc"]
    assert row["pooled"] == pytest.approx(roc_auc_score(pooled["target"], pooled["prob_1"]))
    folds = [run.read_metrics()["test/auroc"] for run in runs]
    assert (row["mean"], row["min"], row["max"]) == pytest.approx((np.mean(folds), min(folds), max(folds)))
    assert row["high"] - row["mean"] == pytest.approx(4.302653 * np.std(folds, ddof=1) * math.sqrt(1 / 3 + 1 / 2))
    assert summary.values.index.tolist() == ["fold_0", "fold_1", "fold_2"]
    assert any("Bengio and Grandvalet 2004" in note for note in summary.notes)


def test_repeats_number_their_folds_anew(tmp_path):
    names = ["repeat_0_fold_0", "repeat_0_fold_1", "repeat_1_fold_0", "repeat_1_fold_1"]
    runs = [write_run(tmp_path / name, [f"s{k % 2}-{n}" for n in range(10)], seed=k) for k, name in enumerate(names)]
    CrossValidation(2, 2).reduce(runs, tmp_path)
    pooled, _ = read_predictions(tmp_path / "predictions_oof.csv")
    assert pooled.groupby("run")["fold"].unique().map(list).to_dict() == dict(zip(names, [[0], [1]] * 2, strict=True))
    assert pooled["sample_id"].value_counts().unique().tolist() == [2]


def test_each_target_has_its_table_and_the_headline_is_their_mean(tmp_path):
    runs = [
        write_run(tmp_path / f"fold_{k}", [f"s{k}-{n}" for n in range(20)], k, tables=("test_edema", "test_mass"))
        for k in range(2)
    ]
    table = CrossValidation(2, 1).reduce(runs, tmp_path).table
    aurocs = []
    for target in ("edema", "mass"):
        pooled, _ = read_predictions(tmp_path / f"predictions_oof_{target}.csv")
        aurocs.append(roc_auc_score(pooled["target"], pooled["prob_1"]))
        assert table.loc[f"test_{target}/auroc", "pooled"] == pytest.approx(aurocs[-1])
    assert table.loc["test/auroc", "pooled"] == pytest.approx(np.mean(aurocs))


def test_studies_of_several_images_are_pooled_too(tmp_path):
    runs = []
    for k in range(2):
        folder = tmp_path / f"fold_{k}"
        folder.mkdir()
        samples = pd.DataFrame({"sample_id": [f"{k}-{n}" for n in range(8)], "label": [0, 0, 1, 1] * 2,
                                "study_id": [f"{k}-{n // 2}" for n in range(8)]})  # fmt: skip
        logits = np.random.default_rng(k).normal(size=(8, 2))
        predictions = make_predictions(samples, logits, CLASSES, "test", folder.name)
        write_predictions(predictions, CLASSES, folder / "predictions_test.csv")
        write_predictions(predictions, CLASSES, folder / "predictions_test_study.csv")
        (folder / "metrics.json").write_text(json.dumps({"metrics": {"test/accuracy": 0, "test_study/accuracy": 0}}))
        runs.append(RunFolder(folder))
    table = CrossValidation(2, 1).reduce(runs, tmp_path).table
    pooled, _ = read_predictions(tmp_path / "predictions_oof.csv")
    studies = pooled.groupby("study_id")[["prob_1", "target"]].mean()
    expected = accuracy_score(studies["target"], studies["prob_1"] > 0.5)
    assert table.loc["test_study/accuracy", "pooled"] == pytest.approx(expected)
    assert not (tmp_path / "predictions_oof_study.csv").exists()
