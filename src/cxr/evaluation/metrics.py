"""Numbers from a table of predictions. Knows nothing of torch, files or how the probabilities were made."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_curve, roc_auc_score

from cxr.errors import DataError
from cxr.evaluation.checks import BoolArray, FloatArray, IntArray, check_indices, check_probs

PER_CLASS = ("precision", "recall", "f1", "specificity", "auroc", "average_precision")


def classification_metrics(target: ArrayLike, probs: ArrayLike, class_names: list[str]) -> dict[str, float]:
    """The metrics of a classifier whose decision is the most probable class.

    With two classes `auroc`, `average_precision`, `sensitivity` and `specificity` are those of class 1, the positive
    one, and `ppv` and `npv` are added; with more they are means over the classes, each against the rest, and every
    class weighs the same. `balanced_accuracy` is the mean recall. Average precision is the area under the steps of
    the precision-recall curve, without interpolation. `f1_micro` pools the counts of all classes; with one class per
    row it equals the accuracy. `mcc` is Gorodkin's correlation of decisions and truth for K classes, `cohen_kappa` the
    agreement beyond chance, without weights.

    What cannot be measured is nan: recall, AUROC and average precision of a class without a case, specificity of a
    class without a case of another, `ppv` and `npv` where nothing was called so, `cohen_kappa` where truth and
    decision know one and the same class only. The means leave such classes out. Precision, F1 and `mcc` follow the
    convention of reports instead and are 0 where they are 0/0; `f1_macro` and `precision_macro` are means over all
    declared classes.

    Args:
        target: (N,) class indices in [0, K), N >= 1.
        probs: (N, K) probabilities.
        class_names: The K names in order.

    Returns:
        accuracy, balanced_accuracy, f1_macro, f1_micro, precision_macro, mcc, cohen_kappa, auroc, average_precision,
        sensitivity, specificity, with K = 2 ppv and npv, and ``<metric>/<class name>`` for each of `PER_CLASS`.

    Raises:
        DataError: Shapes or values do not fit.
    """
    target, probs = check_probs(target, probs, len(class_names))
    classes = range(len(class_names))
    named = name_metrics(
        confusion_counts(target, probs.argmax(axis=1), len(class_names)),
        np.array([_auroc(target == k, probs[:, k]) for k in classes]),
        np.array([_average_precision(target == k, probs[:, k]) for k in classes]),
        class_names,
    )
    return {name: float(value) for name, value in named.items()}


def name_metrics(
    counts: IntArray | FloatArray, auroc: FloatArray, average_precision: FloatArray, class_names: list[str]
) -> dict[str, FloatArray]:
    """What `classification_metrics` returns, from counts and areas of one table or of many at once.

    Args:
        counts: (..., K, K), as of `confusion_counts`, each with at least one row.
        auroc: (..., K) of each class against the rest.
        average_precision: (..., K).
        class_names: The K names in order.

    Returns:
        Name -> (...) values.
    """
    per_class = _per_class(counts) | {"auroc": auroc, "average_precision": average_precision}
    metrics = {
        "accuracy": _right(counts) / counts.sum(axis=(-2, -1)),
        "balanced_accuracy": mean_of_known(per_class["recall"]),
        "f1_macro": per_class["f1"].mean(axis=-1),
        "f1_micro": _right(counts) / counts.sum(axis=(-2, -1)),
        "precision_macro": per_class["precision"].mean(axis=-1),
        "mcc": _mcc(counts),
        "cohen_kappa": _cohen_kappa(counts),
        "auroc": _headline(auroc),
        "average_precision": _headline(average_precision),
        "sensitivity": _headline(per_class["recall"]),
        "specificity": _headline(per_class["specificity"]),
    }
    if len(class_names) == 2:
        called = _share(_diagonal(counts), counts.sum(axis=-2))
        metrics |= {"ppv": called[..., 1], "npv": called[..., 0]}
    return metrics | {
        f"{name}/{label}": per_class[name][..., k] for name in PER_CLASS for k, label in enumerate(class_names)
    }


def proportion_cells(class_names: list[str]) -> dict[str, tuple[BoolArray, BoolArray]]:
    """Which cells of the confusion counts make up every metric that is a share of rows.

    Args:
        class_names: The K names in order.

    Returns:
        Name -> (cells of the numerator, cells of the denominator), each (K, K); the first lie among the second.
    """
    size = len(class_names)
    truth, called = np.indices((size, size))
    right, everything = truth == called, np.full((size, size), True)
    cells = {"accuracy": (right, everything), "f1_micro": (right, everything)}
    for k, label in enumerate(class_names):
        cells[f"precision/{label}"] = (right & (called == k), called == k)
        cells[f"recall/{label}"] = (right & (truth == k), truth == k)
        cells[f"specificity/{label}"] = ((truth != k) & (called != k), truth != k)
    if size == 2:
        negative, positive = class_names
        cells |= {"sensitivity": cells[f"recall/{positive}"], "specificity": cells[f"specificity/{positive}"]}
        cells |= {"ppv": cells[f"precision/{positive}"], "npv": cells[f"precision/{negative}"]}
    return cells


def study_map(target: ArrayLike, probs: ArrayLike, class_names: list[str]) -> float:
    """The study-level mAP of the SIIM-FISABIO-RSNA COVID-19 competition: PASCAL VOC 2010, IoU over 0.5.

    There a study-level label is a box "class confidence 0 0 1 1", and every study is given one for each class. All
    boxes are the same, so a prediction hits if the study has that label, and the average precision of a class is that
    of its probabilities over the studies. As VOC has it since 2010, precision at a recall is the greatest precision at
    that or any larger recall, and the area under all steps of this curve is taken: without the 11 points of
    VOC 2007. It is never below `average_precision`, which does not interpolate. Studies of equal probability
    are one step, where VOC lets the order of files decide. The competition's own number is the mean over these
    classes and, for boxes in images, "opacity" and "none".

    Args:
        target: (N,) class indices in [0, K), one for each study (`aggregate_by_study`).
        probs: (N, K) probabilities.
        class_names: The K names in order.

    Returns:
        Mean over the classes that have a study.

    Raises:
        DataError: Shapes or values do not fit.
    """
    target, probs = check_probs(target, probs, len(class_names))
    each = [_interpolated_precision(target == k, probs[:, k]) for k in range(len(class_names))]
    return float(mean_of_known(np.array(each)))


def confusion_counts(target: ArrayLike, preds: ArrayLike, num_classes: int) -> IntArray:
    """How often each class was called what.

    Args:
        target: (N,) class indices in [0, K).
        preds: (N,) class indices in [0, K).
        num_classes: K.

    Returns:
        (K, K) counts; rows are the true class, columns the predicted one.

    Raises:
        DataError: An index outside [0, K), or lengths that differ.
    """
    target, preds = check_indices(target, num_classes, "targets"), check_indices(preds, num_classes, "predictions")
    if len(target) != len(preds):
        raise DataError(f"expected one prediction per target, got {len(preds)} for {len(target)}; pass matching rows")
    return np.asarray(confusion_matrix(target, preds, labels=range(num_classes)), dtype=np.int64)


def check_metric_names(names: Collection[str], class_names: list[str]) -> None:
    """Refuse names that `classification_metrics` does not return for these classes, with DataError."""
    known = classification_metrics([0], np.eye(len(class_names))[[0]], class_names)
    strange = [name for name in names if name not in known]
    if strange:
        raise DataError(f"expected names of metrics, got {strange}; choose from {sorted(known)}")


def _per_class(counts: IntArray | FloatArray) -> dict[str, FloatArray]:
    right, support, called = _diagonal(counts), counts.sum(axis=-1), counts.sum(axis=-2)
    others = support.sum(axis=-1, keepdims=True) - support
    return {
        "precision": _share(right, called, nothing=0.0),
        "recall": _share(right, support),
        "f1": _share(2 * right, support + called, nothing=0.0),
        "specificity": _share(others - called + right, others),
    }


def _mcc(counts: IntArray | FloatArray) -> FloatArray:
    """Gorodkin 2004, Computational Biology and Chemistry 28:367."""
    support, called = counts.sum(axis=-1, dtype=np.float64), counts.sum(axis=-2, dtype=np.float64)
    total = support.sum(axis=-1)
    together = _right(counts) * total - (support * called).sum(axis=-1)
    spread = (total**2 - (support**2).sum(axis=-1)) * (total**2 - (called**2).sum(axis=-1))
    return _share(together, np.sqrt(spread), nothing=0.0)


def _cohen_kappa(counts: IntArray | FloatArray) -> FloatArray:
    """Cohen 1960, Educational and Psychological Measurement 20:37."""
    support, called = counts.sum(axis=-1, dtype=np.float64), counts.sum(axis=-2, dtype=np.float64)
    total = support.sum(axis=-1)
    chance = (support * called).sum(axis=-1)
    return _share(_right(counts) * total - chance, total**2 - chance)


def _auroc(positive: BoolArray, score: FloatArray) -> float:
    return float("nan") if positive.all() or not positive.any() else float(roc_auc_score(positive, score))


def _average_precision(positive: BoolArray, score: FloatArray) -> float:
    return float(average_precision_score(positive, score)) if positive.any() else float("nan")


def _interpolated_precision(positive: BoolArray, score: FloatArray) -> float:
    if not positive.any():
        return float("nan")
    precision, recall, _ = precision_recall_curve(positive, score)  # recall falls from 1 to 0
    return float(-np.diff(recall) @ np.maximum.accumulate(precision)[:-1])


def _diagonal(counts: IntArray | FloatArray) -> NDArray[Any]:
    diagonal: NDArray[Any] = np.diagonal(counts, axis1=-2, axis2=-1)
    return diagonal


def _right(counts: IntArray | FloatArray) -> FloatArray:
    return np.asarray(_diagonal(counts).sum(axis=-1, dtype=np.float64))


def _headline(values: FloatArray) -> FloatArray:
    return values[..., 1] if values.shape[-1] == 2 else mean_of_known(values)


def mean_of_known(values: FloatArray) -> FloatArray:
    """Mean over the last axis of what is known; nan where nothing is."""
    known = ~np.isnan(values)
    return _share(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def _share(part: ArrayLike, whole: ArrayLike, nothing: float = np.nan) -> FloatArray:
    """part / whole, and `nothing` where whole is 0."""
    part, whole = np.asarray(part), np.asarray(whole)
    return np.divide(part, whole, out=np.full(whole.shape, nothing), where=whole > 0)
