import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from cxr.errors import DataError
from cxr.evaluation.metrics import (
    PER_CLASS,
    check_metric_names,
    classification_metrics,
    confusion_counts,
    proportion_cells,
    study_map,
)

NAMES = ["Negative", "Typical", "Indeterminate", "Atypical", "Other"]


def random_case(num_classes: int, n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = np.concatenate([np.arange(num_classes), rng.integers(num_classes, size=n - num_classes)])
    logits = rng.normal(size=(n, num_classes)) + 1.2 * np.eye(num_classes)[target]
    return target, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_headlines_equal_scikit_learn(num_classes):
    target, probs = random_case(num_classes)
    preds, onehot = probs.argmax(axis=1), np.eye(num_classes)[target]
    metrics = classification_metrics(target, probs, NAMES[:num_classes])
    if num_classes == 2:
        score, truth, average = probs[:, 1], target, "binary"
        auroc = reference.roc_auc_score(truth, score)
    else:
        score, truth, average = probs, onehot, "macro"
        auroc = reference.roc_auc_score(target, probs, multi_class="ovr", average="macro")
    expected = {
        "accuracy": reference.accuracy_score(target, preds),
        "balanced_accuracy": reference.balanced_accuracy_score(target, preds),
        "f1_macro": reference.f1_score(target, preds, average="macro"),
        "f1_micro": reference.f1_score(target, preds, average="micro"),
        "precision_macro": reference.precision_score(target, preds, average="macro"),
        "mcc": reference.matthews_corrcoef(target, preds),
        "cohen_kappa": reference.cohen_kappa_score(target, preds),
        "auroc": auroc,
        "average_precision": reference.average_precision_score(truth, score),
        "sensitivity": reference.recall_score(target, preds, average=average),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_per_class_values_equal_scikit_learn(num_classes):
    target, probs = random_case(num_classes)
    preds = probs.argmax(axis=1)
    metrics = classification_metrics(target, probs, NAMES[:num_classes])
    precision, recall, f1, _ = reference.precision_recall_fscore_support(target, preds)
    for k, name in enumerate(NAMES[:num_classes]):
        found = [metrics[f"{metric}/{name}"] for metric in PER_CLASS]
        specificity = reference.recall_score(target != k, preds != k)
        auroc = reference.roc_auc_score(target == k, probs[:, k])
        average = reference.average_precision_score(target == k, probs[:, k])
        assert found == pytest.approx([precision[k], recall[k], f1[k], specificity, auroc, average])


def test_cells_of_a_proportion_give_the_metric():
    for num_classes in (2, 4):
        target, probs = random_case(num_classes)
        names = NAMES[:num_classes]
        counts, metrics = (
            confusion_counts(target, probs.argmax(axis=1), num_classes),
            classification_metrics(target, probs, names),
        )
        for name, (part, whole) in proportion_cells(names).items():
            assert (part <= whole).all()
            assert counts[part].sum() / counts[whole].sum() == pytest.approx(metrics[name]), name


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    target, probs = random_case(2, n=60)
    pairs = probs[target == 1, 1][:, None] - probs[target == 0, 1][None, :]
    expected = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
    assert classification_metrics(target, probs, NAMES[:2])["auroc"] == pytest.approx(expected)


def test_per_class_values_by_hand():
    target = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    preds = [0, 0, 0, 1, 1, 1, 2, 2, 2, 0]
    metrics = classification_metrics(target, np.eye(3)[preds], ["a", "b", "c c"])
    assert metrics["precision/a"] == pytest.approx(3 / 4)
    assert metrics["recall/a"] == pytest.approx(3 / 4)
    assert metrics["specificity/a"] == pytest.approx(5 / 6)
    assert metrics["recall/c c"] == pytest.approx(2 / 3)
    assert metrics["f1/b"] == pytest.approx(2 / 3)
    assert metrics["specificity"] == pytest.approx((5 / 6 + 6 / 7 + 6 / 7) / 3)


def test_binary_rates_by_hand():
    probs = np.array([[0.9, 0.1]] * 6 + [[0.2, 0.8]] * 4)
    metrics = classification_metrics([0, 0, 0, 0, 0, 1, 1, 1, 1, 0], probs, ["negative", "positive"])
    assert metrics["sensitivity"] == pytest.approx(3 / 4)
    assert metrics["specificity"] == pytest.approx(5 / 6)
    assert metrics["ppv"] == pytest.approx(3 / 4)
    assert metrics["npv"] == pytest.approx(5 / 6)


def test_names_are_stable():
    binary = classification_metrics(*random_case(2), NAMES[:2])
    several = classification_metrics(*random_case(3), NAMES[:3])
    headlines = [
        "accuracy",
        "balanced_accuracy",
        "f1_macro",
        "f1_micro",
        "precision_macro",
        "mcc",
        "cohen_kappa",
        "auroc",
        "average_precision",
        "sensitivity",
        "specificity",
    ]
    assert list(binary) == [*headlines, "ppv", "npv", *(f"{m}/{name}" for m in PER_CLASS for name in NAMES[:2])]
    assert list(several) == [*headlines, *(f"{m}/{name}" for m in PER_CLASS for name in NAMES[:3])]


@pytest.mark.filterwarnings("error")
def test_a_class_without_a_case_is_nan_and_left_out_of_the_means():
    target, probs = random_case(3)
    kept = target != 2
    metrics = classification_metrics(target[kept], probs[kept], NAMES[:3])
    for name in ("recall", "auroc", "average_precision"):
        assert math.isnan(metrics[f"{name}/{NAMES[2]}"])
        assert math.isfinite(metrics[f"{name}/{NAMES[0]}"])
    mean = (metrics[f"auroc/{NAMES[0]}"] + metrics[f"auroc/{NAMES[1]}"]) / 2
    assert metrics["auroc"] == pytest.approx(mean)


@pytest.mark.filterwarnings("error")
def test_one_class_only():
    metrics = classification_metrics([0, 0], [[0.9, 0.1], [0.8, 0.2]], ["negative", "positive"])
    assert metrics["accuracy"] == 1
    assert metrics["specificity"] == 1
    assert metrics["precision/positive"] == metrics["mcc"] == 0
    assert math.isnan(metrics["cohen_kappa"])
    assert all(math.isnan(metrics[name]) for name in ("auroc", "average_precision", "sensitivity", "ppv"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_confusion_counts_every_row_once_in_its_cell(pairs):
    target, preds = np.array(pairs).T
    counts = confusion_counts(target, preds, 4)
    assert counts.sum() == len(pairs)
    assert counts.sum(axis=1).tolist() == np.bincount(target, minlength=4).tolist()
    assert counts.sum(axis=0).tolist() == np.bincount(preds, minlength=4).tolist()
    assert np.trace(counts) == sum(t == p for t, p in pairs)


def test_confusion_rows_are_the_truth():
    assert confusion_counts([0, 0, 1], [1, 1, 1], 2).tolist() == [[0, 2], [0, 1]]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(num_classes, seed):
    target, probs = random_case(num_classes, n=30, seed=seed)
    order = np.random.default_rng(seed).permutation(30)
    names = NAMES[:num_classes]
    shuffled = classification_metrics(target[order], probs[order], names)
    assert classification_metrics(target, probs, names) == pytest.approx(shuffled, nan_ok=True)


@pytest.mark.parametrize(
    ("target", "probs", "names", "message"),
    [
        ([], np.zeros((0, 2)), ["a", "b"], "expected at least one row of probabilities"),
        ([0], [[1.0]], ["a"], r"\(N, 1\) of 2 or more classes, got targets \(1,\) and probabilities \(1, 1\)"),
        (
            [0, 1],
            [[0.5, 0.5]],
            ["a", "b"],
            r"\(N, 2\) of 2 or more classes, got targets \(2,\) and probabilities \(1, 2\)",
        ),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], ["a", "b"], "expected finite probabilities, got 1 NaN"),
        (
            [0, 2],
            [[0.5, 0.5], [0.5, 0.5]],
            ["a", "b"],
            r"expected targets \(N,\) to be class indices from 0 to 1, got \[0, 2\]",
        ),
        ([-1, 0], [[0.5, 0.5], [0.5, 0.5]], ["a", "b"], r"got \[-1, 0\]"),
        ([0], [[0.2, 0.3, 0.5]], ["a", "b"], r"\(N, 2\) of 2 or more classes, got .* probabilities \(1, 3\)"),
        ([0], [[-0.2, 1.2]], ["a", "b"], "expected probabilities from 0 to 1, got -0.2 to 1.2"),
        ([0.0, 0.5], [[0.5, 0.5], [0.5, 0.5]], ["a", "b"], r"got \[0.0, 0.5\]"),
    ],
)
def test_what_does_not_fit_is_refused(target, probs, names, message):
    with pytest.raises(DataError, match=message):
        classification_metrics(target, probs, names)


def voc_average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """As the VOC 2010 development kit has it: every box by falling confidence, the precision envelope, its area."""
    hits = positive[np.argsort(-score, kind="stable")]
    recall = np.concatenate([[0], np.cumsum(hits) / hits.sum(), [1]])
    precision = np.concatenate([[0], np.cumsum(hits) / np.arange(1, len(hits) + 1), [0]])
    for place in range(len(precision) - 2, -1, -1):
        precision[place] = max(precision[place], precision[place + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 5), st.integers(6, 40), st.integers(0, 10**6))
def test_study_map_is_that_of_pascal_voc(num_classes, studies, seed):
    target, probs = random_case(num_classes, studies, seed)
    names = NAMES[:num_classes]
    expected = np.mean([voc_average_precision(target == k, probs[:, k]) for k in range(num_classes)])
    assert study_map(target, probs, names) == pytest.approx(expected)
    steps = [classification_metrics(target, probs, names)[f"average_precision/{name}"] for name in names]
    assert study_map(target, probs, names) >= np.mean(steps) - 1e-12


def test_study_map_by_hand():
    """Cases at ranks 1, 3 and 4 of 5: precisions 1, 2/3, 3/4; the envelope lifts the second to 3/4."""
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    found = study_map([1, 0, 1, 1, 0], np.stack([np.zeros(5), score], axis=1), ["a", "b"])
    of_ties = 2 / 5  # class 0: every study has the same score
    assert found == pytest.approx(((1 + 3 / 4 + 3 / 4) / 3 + of_ties) / 2)


def test_study_map_leaves_out_a_class_without_a_study():
    assert study_map([1, 1], [[0.1, 0.9], [0.2, 0.8]], ["a", "b"]) == 1


def test_metric_names_are_checked():
    check_metric_names(["auroc", "recall/a"], ["a", "b"])
    with pytest.raises(
        DataError, match=r"expected names of metrics, got \['auc', 'recall/c'\]; choose from \['accuracy'"
    ):
        check_metric_names(["auc", "auroc", "recall/c"], ["a", "b"])


def test_confusion_counts_refuses_lengths_that_differ():
    with pytest.raises(DataError, match="expected one prediction per target, got 1 for 2"):
        confusion_counts([0, 1], [0], 2)
