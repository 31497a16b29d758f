"""Numbers from a table of predictions. Knows nothing of torch, files or how the probabilities were made."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support, roc_auc_score

from cxr.errors import DataError

PER_CLASS = ("precision", "recall", "f1", "specificity", "auroc", "average_precision")

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def classification_metrics(target: ArrayLike, probs: ArrayLike, class_names: list[str]) -> dict[str, float]:
    """The metrics of a classifier whose decision is the most probable class.

    With two classes `auroc`, `average_precision`, `sensitivity` and `specificity` are those of class 1, the positive
    one, and `ppv` and `npv` are added; with more they are means over the classes, each against the rest, and every
    class weighs the same. `balanced_accuracy` is the mean recall. Average precision is the area under the steps of
    the precision-recall curve, without interpolation.

    What cannot be measured is nan: recall, AUROC and average precision of a class without a case, specificity of a
    class without a case of another, `ppv` and `npv` where nothing was called so. The means leave such classes out.
    Precision and F1 follow the convention of reports instead and are 0 where they are 0/0; `f1_macro` is the mean
    over all declared classes.

    Args:
        target: (N,) class indices in [0, K), N >= 1.
        probs: (N, K) probabilities.
        class_names: The K names in order.

    Returns:
        accuracy, balanced_accuracy, f1_macro, auroc, average_precision, sensitivity, specificity, with K = 2 ppv and
        npv, and ``<metric>/<class name>`` for each of `PER_CLASS`.

    Raises:
        DataError: Shapes or values do not fit.
    """
    target, probs = _checked(target, probs, len(class_names))
    counts = confusion_counts(target, probs.argmax(axis=1), len(class_names))
    per_class = _per_class(target, probs)
    metrics = {
        "accuracy": float(np.trace(counts) / counts.sum()),
        "balanced_accuracy": _mean(per_class["recall"]),
        "f1_macro": float(per_class["f1"].mean()),
        "auroc": _headline(per_class["auroc"]),
        "average_precision": _headline(per_class["average_precision"]),
        "sensitivity": _headline(per_class["recall"]),
        "specificity": _headline(per_class["specificity"]),
    }
    if len(class_names) == 2:
        npv, ppv = _share(np.diag(counts), counts.sum(axis=0))
        metrics |= {"ppv": float(ppv), "npv": float(npv)}
    return metrics | {
        f"{name}/{label}": float(per_class[name][k]) for name in PER_CLASS for k, label in enumerate(class_names)
    }


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
    target, preds = _class_indices(target, num_classes, "target"), _class_indices(preds, num_classes, "preds")
    if len(target) != len(preds):
        raise DataError(f"expected one prediction per target, got {len(preds)} for {len(target)}; pass matching rows")
    return np.asarray(confusion_matrix(target, preds, labels=range(num_classes)), dtype=np.int64)


def _per_class(target: IntArray, probs: FloatArray) -> dict[str, FloatArray]:
    classes = range(probs.shape[1])
    preds = probs.argmax(axis=1)
    precision, _, f1, _ = precision_recall_fscore_support(target, preds, labels=classes, zero_division=0)
    counts = confusion_counts(target, preds, len(classes))
    support = counts.sum(axis=1)
    others_kept = counts.sum() - support - counts.sum(axis=0) + np.diag(counts)
    return {
        "precision": precision,
        "recall": _share(np.diag(counts), support),
        "f1": f1,
        "specificity": _share(others_kept, counts.sum() - support),
        "auroc": np.array([_auroc(target == k, probs[:, k]) for k in classes]),
        "average_precision": np.array([_average_precision(target == k, probs[:, k]) for k in classes]),
    }


def _auroc(positive: NDArray[np.bool_], score: FloatArray) -> float:
    return float("nan") if positive.all() or not positive.any() else float(roc_auc_score(positive, score))


def _average_precision(positive: NDArray[np.bool_], score: FloatArray) -> float:
    return float(average_precision_score(positive, score)) if positive.any() else float("nan")


def _headline(values: FloatArray) -> float:
    return float(values[1]) if len(values) == 2 else _mean(values)


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _share(part: IntArray, whole: IntArray) -> FloatArray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _checked(target: ArrayLike, probs: ArrayLike, num_classes: int) -> tuple[IntArray, FloatArray]:
    target, probs = _class_indices(target, num_classes, "target"), np.asarray(probs, dtype=np.float64)
    if num_classes < 2:
        raise DataError(f"expected at least 2 class names, got {num_classes}; name every class the model knows")
    if len(target) == 0:
        raise DataError("expected at least one prediction, got none; evaluate a part of the split that has rows")
    if probs.shape != (len(target), num_classes):
        wanted = (len(target), num_classes)
        raise DataError(f"expected probabilities of shape {wanted}, got {probs.shape}; give one column per class name")
    if not np.isfinite(probs).all():
        bad = int((~np.isfinite(probs)).any(axis=1).sum())
        raise DataError(f"expected finite probabilities, got NaN or infinity in {bad} rows; look for a diverged run")
    return target, probs


def _class_indices(values: ArrayLike, num_classes: int, name: str) -> IntArray:
    indices = np.asarray(values)
    whole = np.issubdtype(indices.dtype, np.integer) or indices.size == 0
    if indices.ndim != 1 or not whole or (indices.size and (indices.min() < 0 or indices.max() >= num_classes)):
        seen = np.unique(indices)[:10].tolist()
        raise DataError(
            f"expected {name} to be class indices from 0 to {num_classes - 1}, got {seen}; use the class order"
        )
    return indices.astype(np.int64)
