"""Metrics of one validation or test epoch, from the logits of all its images on all devices.

A multi-label epoch is one yes-or-no question per target, each asked of the images that state it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import classification as tm
from torchmetrics.utilities import dim_zero_cat

PER_CLASS = ("precision", "recall", "f1", "specificity", "auroc", "average_precision")
HEADLINES = (
    "accuracy", "balanced_accuracy", "f1_macro", "auroc", "average_precision", "sensitivity", "specificity",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """What a net was asked of some images, and what it answered.

    Attributes:
        logits: (N, K) float.
        target: (N,) class indices.
        key: (N,) the images' keys.
        class_names: The K names in order.
    """

    logits: Tensor
    target: Tensor
    key: Tensor
    class_names: list[str]


def make_questions(logits: Tensor, target: Tensor, key: Tensor, class_names: list[str]) -> dict[str, Question]:
    """One nameless question where each image has one class; else one for each target that is stated both ways.

    Args:
        logits: (N, K) float.
        target: (N,) class indices, or (N, K) targets: 1, 0, or NaN where nothing is stated.
        key: (N,) the images' keys.
        class_names: Names of the K classes or targets.
    """
    if target.ndim == 1:
        return {"": Question(logits, target, key, class_names)}
    questions = {}
    for number, name in enumerate(class_names):
        stated = ~target[:, number].isnan()
        answers, logit = target[stated, number].long(), logits[stated, number]
        if answers.any() and not answers.all():  # class 0 has logit 0, so that softmax is the sigmoid of class 1's
            two = torch.stack([torch.zeros_like(logit), logit], dim=1)
            questions[name] = Question(two, answers, key[stated], [f"no {name}", name])
    return questions


class EpochOutputs(Metric):
    """Logits, targets and sample keys of an epoch; `compute` gathers them over all devices.

    States: logits (N, K) float32, target (N,) int64 or (N, K) float32, key (N,) int64, in the order they came.
    """

    full_state_update = False
    logits: list[Tensor]
    target: list[Tensor]
    key: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("logits", "target", "key"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, target: Tensor, key: Tensor) -> None:
        """Keep a batch: logits (B, K), target (B,) or (B, K), key (B,)."""
        self.logits.append(logits.detach().float())
        self.target.append(target)
        self.key.append(key.to(logits.device))

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """(logits, target, key) of all images, each image once, sorted by key."""
        logits, target, key = (dim_zero_cat(state) for state in (self.logits, self.target, self.key))
        order = torch.argsort(key, stable=True)
        first = torch.ones_like(order, dtype=torch.bool)
        first[1:] = key[order][1:] != key[order][:-1]
        kept = order[first]
        return logits[kept], target[kept], key[kept]


def count_right(logits: Tensor, target: Tensor) -> Tensor:
    """Share of right answers: the most probable class, or every stated target at 0.5."""
    if target.ndim == 1:
        return (logits.argmax(dim=1) == target).float().mean()
    stated = ~target.isnan()
    return (((logits > 0) == (target == 1)) & stated).sum() / stated.sum()


def metric_names(class_names: list[str], multilabel: bool) -> list[str]:
    """Names that `epoch_metrics` returns for these classes or targets, and ``loss``."""
    if multilabel:
        return ["loss", *HEADLINES, *(f"{metric}/{name}" for metric in HEADLINES for name in class_names)]
    return ["loss", *HEADLINES, *(f"{metric}/{name}" for metric in PER_CLASS for name in class_names)]


def headline(values: Tensor) -> Tensor:
    """One number from per-class values (K,): class 1 where there are two classes, else the mean."""
    return values[1] if len(values) == 2 else values.mean()


def epoch_metrics(logits: Tensor, target: Tensor, class_names: list[str]) -> dict[str, Tensor]:
    """Every metric of an epoch but the loss.

    Args:
        logits: (N, K) float.
        target: (N,) class indices in [0, K), or (N, K) targets, NaN where nothing is stated.
        class_names: Names of the K classes or targets.

    Returns:
        Name -> scalar tensor, the names of `metric_names` without ``loss``. Of several targets the headlines are means
        over those that are stated both ways; the others have no metrics of their own.
    """
    if target.ndim == 1:
        return class_metrics(logits, target, class_names)
    questions = make_questions(logits, target, torch.arange(len(target)), class_names)
    each = {name: class_metrics(q.logits, q.target, q.class_names) for name, q in questions.items()}
    means = {metric: torch.stack([values[metric] for values in each.values()]).mean() for metric in HEADLINES if each}
    return means | {f"{metric}/{name}": values[metric] for metric in HEADLINES for name, values in each.items()}


def class_metrics(logits: Tensor, target: Tensor, class_names: list[str]) -> dict[str, Tensor]:
    """Every metric of images with one class each, by torchmetrics.

    With two classes AUROC, average precision, sensitivity and specificity are those of class 1 (the positive one);
    with more they are the mean over classes, one-vs-rest. Balanced accuracy is the mean recall.

    Args:
        logits: (N, K) float.
        target: (N,) class indices in [0, K).
        class_names: The K names in order.

    Returns:
        `HEADLINES`, and ``<metric>/<class>`` for those of `PER_CLASS`, as scalar tensors.
    """
    k = len(class_names)
    probs = logits.softmax(dim=1)
    per_class = {
        "precision": tm.multiclass_precision(probs, target, k, average=None),
        "recall": tm.multiclass_recall(probs, target, k, average=None),
        "f1": tm.multiclass_f1_score(probs, target, k, average=None),
        "specificity": tm.multiclass_specificity(probs, target, k, average=None),
        "auroc": tm.multiclass_auroc(probs, target, k, average=None),
        "average_precision": tm.multiclass_average_precision(probs, target, k, average=None),
    }
    metrics = {
        "accuracy": tm.multiclass_accuracy(probs, target, k, average="micro"),
        "balanced_accuracy": per_class["recall"].mean(),
        "f1_macro": per_class["f1"].mean(),
        "auroc": headline(per_class["auroc"]),
        "average_precision": headline(per_class["average_precision"]),
        "sensitivity": headline(per_class["recall"]),
        "specificity": headline(per_class["specificity"]),
    }
    metrics |= {f"{metric}/{name}": per_class[metric][i] for metric in PER_CLASS for i, name in enumerate(class_names)}
    return metrics
