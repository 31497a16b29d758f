"""What a contestant learns of a fold: the rows of the others, and nothing else (A14 for the scaler)."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from sklearn.preprocessing import MinMaxScaler

from cxr.classical import families
from cxr.entry import prepare_environment
from cxr.experiments.automl.contestants import VIEW, Classical, SmallCnn
from cxr.experiments.automl.task import Task
from cxr.experiments.automl.views import View
from cxr.experiments.plan import PlanFolder
from cxr.imaging.preprocess import Preprocess
from cxr.inference.features import Features

ROWS, FOLDS = 60, 5
TABLE = np.random.default_rng(0).random((ROWS, 30)).astype(np.float32)
LABELS = np.arange(ROWS) % 2


@pytest.fixture
def svm():
    samples = pd.DataFrame({"sample_id": [str(n) for n in range(ROWS)], "label": LABELS, "group": np.arange(ROWS)})
    task = Task(samples, ["a", "b"], np.arange(ROWS) // 2 % FOLDS, "auroc", lambda table: table)
    features = Features("pixels", Preprocess(size=(5, 6)))
    views = {"half": View(features, TABLE / 2), "whole": View(features, TABLE)}
    return Classical("svm", views, task, 1, 0)


def test_a_scaler_never_sees_a_row_of_the_fold_that_is_scored(svm, monkeypatch):
    seen = []

    class Watched(MinMaxScaler):
        def fit(self, table, target=None, **rest):
            seen.append(np.array(table))
            return super().fit(table, target, **rest)

    monkeypatch.setitem(families.SCALERS, "minmax", Watched)
    for fold in range(FOLDS):
        seen.clear()
        probs = svm.predict({**svm.first, "scaler": "minmax"}, fold, 0)
        assert probs.shape == ((svm.task.folds == fold).sum(), 2)
        np.testing.assert_array_equal(np.concatenate(seen), TABLE[svm.task.folds != fold])


def test_neither_features_nor_labels_of_a_fold_change_the_model_that_scores_it(svm):
    expected = svm.fit(svm.first, svm.task.folds != 2).predict_proba(TABLE)
    changed = TABLE.copy()
    changed[svm.task.folds == 2] += 100
    samples = svm.task.samples.assign(label=np.where(svm.task.folds == 2, 1 - LABELS, LABELS))
    task = Task(samples, ["a", "b"], svm.task.folds, "auroc", lambda table: table)
    views = {name: View(view.features, changed) for name, view in svm.views.items()}
    other = Classical("svm", views, task, 1, 0)
    np.testing.assert_array_equal(other.fit(svm.first, task.folds != 2).predict_proba(TABLE), expected)


def test_the_search_chooses_between_views_and_starts_with_the_last(svm):
    assert svm.first[VIEW] == "whole"
    assert svm.space[VIEW].choices == ("half", "whole")
    half, whole = (svm.fit({**svm.first, VIEW: name}, svm.task.folds != 0) for name in ("half", "whole"))
    assert half.named_steps["scaler"].data_max_ == pytest.approx(whole.named_steps["scaler"].data_max_ / 2)


def test_the_net_of_a_recipe_gives_way_to_the_small_one(svm, tmp_path):
    recipe = ["experiment=reference_d_mobilenet", "net=timm", "net.architecture=resnet18", "transfer.layer_decay=0.5"]
    cnn = SmallCnn(svm.task, PlanFolder(tmp_path), recipe, [], 1)
    words = cnn._words({"net.filters_1": 8}, 0, tmp_path / "cnn_0" / "fold_0")
    prepare_environment()
    with initialize_config_dir(str(Path(__file__).parents[3] / "configs")):
        config = compose("train", words)
    assert (config.net.name, config.net.filters_1) == ("custom_cnn", 8)
    assert set(config.transfer.values()) == {None}
