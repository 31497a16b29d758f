import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cxr.errors import DataError
from cxr.evaluation.figure_stress import NAMES, plot_stress
from cxr.evaluation.stress import METRICS, measure_stress

CLASSES = ["normal", "pneumonia"]


def draw_predictions(patients=80, seed=0):
    rng = np.random.default_rng(seed)
    target = np.repeat(rng.integers(0, 2, patients), 2)
    prob = 1 / (1 + np.exp(-rng.normal(2 * target - 1, 1)))
    return pd.DataFrame({
        "sample_id": [f"s{i}" for i in range(2 * patients)],
        "patient_id": np.repeat([f"p{i}" for i in range(patients)], 2), "study_id": None,
        "target": target, "prob_0": 1 - prob, "prob_1": prob,
    })  # fmt: skip


def worse(table, seed=1):
    prob = np.clip(table["prob_1"] + np.random.default_rng(seed).normal(0, 0.5, len(table)), 0.01, 0.99)
    return np.stack([1 - prob, prob], axis=1)


@pytest.fixture(scope="module")
def measured():
    table = draw_predictions()
    same, bad = table[["prob_0", "prob_1"]].to_numpy(), worse(table)
    return table, bad, measure_stress(table, {("none at all", "0"): same, ("noise", "SD 1"): bad}, CLASSES)


def test_values_are_those_of_scikit_learn(measured):
    table, bad, found = measured
    assert found["auroc"].tolist() == pytest.approx(
        [roc_auc_score(table["target"], table["prob_1"])] * 2 + [roc_auc_score(table["target"], bad[:, 1])]
    )
    assert found.loc[2, "balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(table["target"], bad.argmax(axis=1))
    )


def test_what_is_lost_is_the_difference_and_its_interval_tells_harm_from_none(measured):
    _, _, found = measured
    assert found.loc[2, "auroc_lost"] == pytest.approx(found.loc[0, "auroc"] - found.loc[2, "auroc"])
    assert found.loc[2, "auroc_lost_low"] > 0
    assert found.loc[1, "auroc_lost"] == 0
    assert np.isnan(found.loc[1, "auroc_lost_low"])


def test_answers_that_moved_are_counted(measured):
    table, bad, found = measured
    expected = ((bad[:, 1] > 0.5) != (table["prob_1"] > 0.5)).sum()
    assert found["moved"].tolist() == [0, 0, expected]
    assert set(found["n"]) == {len(table)}


def test_rows_that_do_not_fit_are_refused():
    table = draw_predictions()
    with pytest.raises(DataError, match="expected"):
        measure_stress(table, {("noise", "SD 1"): worse(table)[:-1]}, CLASSES)


def test_the_figure_shows_every_change_once(measured):
    *_, found = measured
    for metric in METRICS:
        (ax,) = plot_stress(found, metric).axes
        assert [label.get_text() for label in ax.get_yticklabels()] == ["none at all 0", "noise SD 1"]
        assert NAMES[metric] in ax.get_xlabel()
