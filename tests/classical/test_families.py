"""Every family learns, uses no more cores than told, and scales by the rows that it is fitted on alone."""

import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_info, threadpool_limits

from cxr.classical import families
from cxr.classical.families import FAMILIES, MODEL, SCALER, Rows, fit_model
from cxr.errors import MissingExtraError
from cxr.experiments.automl.settings import FAMILY_NAMES


def make_rows(classes=3, rows=90, columns=40, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    table = rng.random((rows, columns)) + 0.8 * (labels[:, None] == np.arange(columns) % classes)
    return Rows(table.astype(np.float32), labels, np.arange(rows) // 2)


def accuracy(model, rows):
    return float((model.predict_proba(rows.table).argmax(axis=1) == rows.labels).mean())


def test_the_names_of_the_config_are_the_families():
    assert tuple(FAMILIES) == FAMILY_NAMES


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_from_its_first_values(family, classes):
    model = fit_model(family, FAMILIES[family].first, make_rows(classes), 1, 0)
    other = make_rows(classes, seed=1)
    probs = model.predict_proba(other.table)
    assert probs.shape == (90, classes)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    assert accuracy(model, other) > 0.8


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_values_lie_in_the_space(family):
    space, first = FAMILIES[family].space, FAMILIES[family].first
    assert space.keys() == first.keys()
    assert all(space[key]._contains(space[key].to_internal_repr(value)) for key, value in first.items())


@pytest.mark.parametrize("family", [name for name, one in FAMILIES.items() if SCALER in one.space])
def test_the_scaler_learns_the_rows_of_the_fit_alone(family, monkeypatch):
    seen = []

    class Watched(MinMaxScaler):
        def fit(self, table, target=None, **rest):
            seen.append(np.array(table))
            return super().fit(table, target, **rest)

    monkeypatch.setitem(families.SCALERS, "minmax", Watched)
    rows = make_rows()
    train = np.arange(90) % 5 != 0
    model = fit_model(family, {**FAMILIES[family].first, SCALER: "minmax"}, rows.take(train), 1, 0)
    model.predict_proba(rows.table[~train])
    np.testing.assert_array_equal(np.concatenate(seen), rows.table[train])
    np.testing.assert_array_equal(model.named_steps[SCALER].data_max_, rows.table[train].max(axis=0))


def test_the_probabilities_of_an_svm_come_from_groups_that_it_did_not_learn():
    rows = make_rows()
    model = fit_model("svm", FAMILIES["svm"].first, rows, 1, 0)
    for learnt, asked in model.named_steps[MODEL].cv:
        assert not set(rows.groups[learnt]) & set(rows.groups[asked])


@pytest.mark.parametrize("family", ["xgboost", "lightgbm", "random_forest", "knn"])
def test_estimators_are_told_how_many_cores(family):
    assert fit_model(family, FAMILIES[family].first, make_rows(), 3, 0).named_steps[MODEL].n_jobs == 3


def test_native_pools_stay_within_the_limit(monkeypatch):
    found = []

    class Watched(MinMaxScaler):
        def fit(self, table, target=None, **rest):
            found.extend(pool["num_threads"] for pool in threadpool_info())
            return super().fit(table, target, **rest)

    monkeypatch.setitem(families.SCALERS, "minmax", Watched)
    with threadpool_limits(limits=1):
        fit_model("svm", FAMILIES["svm"].first, make_rows(), 1, 0)
    assert found
    assert set(found) == {1}


def test_classes_count_alike_where_the_estimator_has_no_setting_for_it(monkeypatch):
    weights = []
    import xgboost

    original = xgboost.XGBClassifier.fit
    monkeypatch.setattr(
        xgboost.XGBClassifier, "fit",
        lambda self, x, y, **rest: weights.append(rest["sample_weight"]) or original(self, x, y, **rest),
    )  # fmt: skip
    rows = make_rows().take(np.arange(90) % 6 != 0)
    fit_model("xgboost", FAMILIES["xgboost"].first, rows, 1, 0)
    np.testing.assert_allclose(weights[0], compute_sample_weight("balanced", rows.labels))


def test_neighbours_are_no_more_than_rows():
    params = {**FAMILIES["knn"].first, "n_neighbors": 25}
    assert fit_model("knn", params, make_rows(rows=9), 1, 0).named_steps[MODEL].n_neighbors == 9


def test_a_package_that_is_not_installed(monkeypatch):
    def refuse(module, extra):
        raise MissingExtraError(f"{module} is not installed; install it with: pip install 'cxr-lab[{extra}]'")

    monkeypatch.setattr(families, "require_extra", refuse)
    with pytest.raises(MissingExtraError, match=r"lightgbm is not installed; .*cxr-lab\[automl\]"):
        fit_model("lightgbm", FAMILIES["lightgbm"].first, make_rows(), 1, 0)
