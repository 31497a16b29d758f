"""Metrics of one validation or test epoch, from the logits of all its images on all devices."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import classification as tm
from torchmetrics.utilities import dim_zero_cat

PER_CLASS = ("precision", "recall", "f1", "specificity", "auroc", "average_precision")
HEADLINES = (
    "accuracy", "balanced_accuracy", "f1_macro", "auroc", "average_precision", "sensitivity", "specificity",
)  # fmt: skip


class EpochOutputs(Metric):
    """Logits, targets and sample keys of an epoch; `compute` gathers them over all devices.

    States: logits (N, K) float32, target (N,) int64, key (N,) int64, in the order they came.
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
        """Keep a batch: logits (B, K), target (B,), key (B,)."""
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


def metric_names(class_names: list[str]) -> list[str]:
    """Names that `epoch_metrics` returns for these classes."""
    return ["loss", *HEADLINES, *(f"{metric}/{name}" for metric in PER_CLASS for name in class_names)]


def headline(values: Tensor) -> Tensor:
    """One number from per-class values (K,): class 1 where there are two classes, else the mean."""
    return values[1] if len(values) == 2 else values.mean()


def epoch_metrics(logits: Tensor, target: Tensor, class_names: list[str]) -> dict[str, Tensor]:
    """Every metric of an epoch but the loss, by torchmetrics.

    With two classes AUROC, average precision, sensitivity and specificity are those of class 1 (the positive one);
    with more they are the mean over classes, one-vs-rest. Balanced accuracy is the mean recall.

    Args:
        logits: (N, K) float.
        target: (N,) class indices in [0, K).
        class_names: The K names in order.

    Returns:
        Name -> scalar tensor, the names of `metric_names` without ``loss``.
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
