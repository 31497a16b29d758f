"""Families of classical models: what is searched of each, where the search begins, and how one is fitted.

Every model is a scikit-learn pipeline, so that what it learns of its input, a scaler included, it learns from the rows
that it is fitted on. Knows nothing of images, folds or what the models are for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.class_weight import compute_sample_weight

from cxr.errors import require_extra

Table = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Params = Mapping[str, Any]
Space = Mapping[str, BaseDistribution]

SCALERS = {"minmax": MinMaxScaler, "standard": StandardScaler}
SCALER, MODEL = "scaler", "model"
TYPICAL_VARIANCE = {"minmax": 0.05, "standard": 1.0}
"""Of a column after scaling: with it one range of SVM kernel widths fits both scalers."""
CALIBRATION_FOLDS = 3
MAX_BIN = 63
"""Of a column of boosted trees: a histogram of thousands of columns costs more than the rows of small data."""


@dataclass(frozen=True)
class Rows:
    """What a model is fitted on.

    Attributes:
        table: (N, D) features.
        labels: (N,) class indices, each class at least once.
        groups: (N,) rows of one group are never divided.
    """

    table: Table
    labels: Labels
    groups: npt.NDArray[np.int64]

    def take(self, chosen: npt.NDArray[np.bool_]) -> "Rows":
        """The rows where `chosen` (N,) is true."""
        return Rows(self.table[chosen], self.labels[chosen], self.groups[chosen])


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Attributes:
        space: What is searched.
        first: Where the search begins: values that are known to do.
        make: (params, rows, threads, seed) -> an estimator that is not fitted.
        needs: Package that it takes beyond scikit-learn; empty for none.
        weighs_rows: Whether classes are balanced by weights of rows, for want of a setting of its own.
    """

    space: Space
    first: Params
    make: Callable[[Params, Rows, int, int], BaseEstimator]
    needs: str = ""
    weighs_rows: bool = False


def fit_model(family: str, params: Params, rows: Rows, threads: int, seed: int) -> Pipeline:
    """Fit a model of a family; classes count alike, however rare, where the family can do that.

    Args:
        family: A key of `FAMILIES`.
        params: A value for each key of its space.
        rows: What to learn from.
        threads: The most cores to use.
        seed: Of whatever is random in it.

    Returns:
        A pipeline whose ``predict_proba`` has a column for each class.

    Raises:
        MissingExtraError: The family's package is not installed.
    """
    kind = FAMILIES[family]
    if kind.needs:
        require_extra(kind.needs, "automl")
    steps = [(SCALER, SCALERS[params[SCALER]]())] if SCALER in params else []
    pipeline = Pipeline([*steps, (MODEL, kind.make(params, rows, threads, seed))])
    weights = {f"{MODEL}__sample_weight": compute_sample_weight("balanced", rows.labels)} if kind.weighs_rows else {}
    return pipeline.fit(rows.table, rows.labels, **weights)


def _own(params: Params) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != SCALER}


def _make_svm(params: Params, rows: Rows, threads: int, seed: int) -> BaseEstimator:
    """Platt's probabilities, from scores of rows that the SVM did not learn, groups whole."""
    width = params["width"] / TYPICAL_VARIANCE[params[SCALER]] / rows.table.shape[1]
    svm = SVC(C=params["C"], gamma=width, class_weight="balanced")
    splitter = StratifiedGroupKFold(CALIBRATION_FOLDS, shuffle=True, random_state=seed)
    splits = list(splitter.split(rows.labels, rows.labels, rows.groups))
    return CalibratedClassifierCV(svm, cv=splits, ensemble=False, n_jobs=1)


def _make_logistic_regression(params: Params, rows: Rows, threads: int, seed: int) -> BaseEstimator:
    return LogisticRegression(**_own(params), class_weight="balanced", max_iter=1000)


def _make_knn(params: Params, rows: Rows, threads: int, seed: int) -> BaseEstimator:
    neighbours = min(params["n_neighbors"], len(rows.labels))
    return KNeighborsClassifier(neighbours, n_jobs=threads)


def _make_random_forest(params: Params, rows: Rows, threads: int, seed: int) -> BaseEstimator:
    return RandomForestClassifier(**_own(params), class_weight="balanced", n_jobs=threads, random_state=seed)


def _make_xgboost(params: Params, rows: Rows, threads: int, seed: int) -> BaseEstimator:
    from xgboost import XGBClassifier

    return XGBClassifier(**_own(params), max_bin=MAX_BIN, n_jobs=threads, random_state=seed, verbosity=0)


def _make_lightgbm(params: Params, rows: Rows, threads: int, seed: int) -> BaseEstimator:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        **_own(params), class_weight="balanced", max_bin=MAX_BIN, n_jobs=threads, random_state=seed, deterministic=True,
        force_row_wise=True, verbose=-1,
    )  # fmt: skip


_SCALER = {SCALER: CategoricalDistribution(list(SCALERS))}

FAMILIES: dict[str, Family] = {
    "svm": Family(
        {**_SCALER, "C": FloatDistribution(0.1, 100, log=True), "width": FloatDistribution(0.1, 10, log=True)},
        {SCALER: "minmax", "C": 10.0, "width": 1.0},
        _make_svm,
    ),
    "xgboost": Family(
        {
            "n_estimators": IntDistribution(50, 400, log=True),
            "learning_rate": FloatDistribution(0.02, 0.3, log=True),
            "max_depth": IntDistribution(2, 6),
            "subsample": FloatDistribution(0.5, 1.0),
            "colsample_bytree": FloatDistribution(0.02, 1.0, log=True),
            "min_child_weight": FloatDistribution(0.2, 10, log=True),
        },
        {
            "n_estimators": 100, "learning_rate": 0.1, "max_depth": 3, "subsample": 0.8, "colsample_bytree": 0.1,
            "min_child_weight": 1.0,
        },
        _make_xgboost,
        needs="xgboost",
        weighs_rows=True,
    ),
    "lightgbm": Family(
        {
            "n_estimators": IntDistribution(50, 400, log=True),
            "learning_rate": FloatDistribution(0.02, 0.3, log=True),
            "num_leaves": IntDistribution(4, 63, log=True),
            "min_child_samples": IntDistribution(3, 30, log=True),
            "colsample_bytree": FloatDistribution(0.02, 1.0, log=True),
            "reg_lambda": FloatDistribution(1e-3, 10, log=True),
        },
        {
            "n_estimators": 100, "learning_rate": 0.1, "num_leaves": 15, "min_child_samples": 10,
            "colsample_bytree": 0.1, "reg_lambda": 1.0,
        },
        _make_lightgbm,
        needs="lightgbm",
    ),
    "random_forest": Family(
        {
            "n_estimators": IntDistribution(100, 500, step=100),
            "max_features": FloatDistribution(0.005, 0.3, log=True),
            "min_samples_leaf": IntDistribution(1, 8, log=True),
        },
        {"n_estimators": 300, "max_features": 0.03, "min_samples_leaf": 1},
        _make_random_forest,
    ),
    "logistic_regression": Family(
        {**_SCALER, "C": FloatDistribution(1e-4, 10, log=True)}, {SCALER: "standard", "C": 0.01},
        _make_logistic_regression,
    ),
    "knn": Family(
        {**_SCALER, "n_neighbors": IntDistribution(1, 25, step=2)}, {SCALER: "standard", "n_neighbors": 7}, _make_knn
    ),
}  # fmt: skip
"""Name -> family, in the order in which they first run."""
