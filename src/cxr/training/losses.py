"""Losses on logits (B, K) and class indices (B,), or targets (B, K). Knows nothing of Lightning or configs."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

ClassWeights = Literal["none", "balanced"]


def weigh_classes(counts: Tensor, kind: ClassWeights) -> Tensor | None:
    """Weight of each class from the class counts of the training part.

    Args:
        counts: (K,) images per class, each at least 1.
        kind: ``balanced`` gives n / (K * n_k) as scikit-learn's ``compute_class_weight``; ``none`` gives None.

    Returns:
        (K,) float32 weights or None.
    """
    if kind == "none":
        return None
    return (counts.sum() / (len(counts) * counts)).float()


def make_cross_entropy(counts: Tensor, class_weights: ClassWeights, label_smoothing: float) -> nn.Module:
    """Cross-entropy with optional class weights and label smoothing in [0, 1)."""
    return nn.CrossEntropyLoss(weight=weigh_classes(counts, class_weights), label_smoothing=label_smoothing)


class FocalLoss(nn.Module):
    """Multi-class focal loss, mean of -w_y (1 - p_y)^gamma log p_y (Lin et al. 2017, arXiv:1708.02002).

    With gamma = 0 it is the class-weighted cross-entropy of torch, the weights normalising the mean included.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of logits (B, K) against class indices (B,)."""
        log_p = functional.log_softmax(logits, dim=1).gather(1, target[:, None]).squeeze(1)
        weight = self.weight[target]
        return -(weight * (1 - log_p.exp()) ** self.gamma * log_p).sum() / weight.sum()


def make_focal(counts: Tensor, class_weights: ClassWeights, gamma: float) -> nn.Module:
    """Focal loss with optional class weights; gamma >= 0."""
    weight = weigh_classes(counts, class_weights)
    return FocalLoss(torch.ones(len(counts)) if weight is None else weight, gamma)


class MaskedBinaryCrossEntropy(nn.Module):
    """Mean binary cross-entropy over the stated targets of a batch; what a dataset does not state teaches nothing.

    Args:
        positive_weight: (K,) weight of the positive answers to each target.
    """

    positive_weight: Tensor

    def __init__(self, positive_weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("positive_weight", positive_weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of logits (B, K) against targets (B, K): 1, 0, or NaN where nothing is stated."""
        stated = (~target.isnan()).to(logits.dtype)
        each = functional.binary_cross_entropy_with_logits(
            logits, target.nan_to_num().to(logits.dtype), pos_weight=self.positive_weight, reduction="none"
        )
        return (each * stated).sum() / stated.sum()


def make_masked_bce(counts: Tensor, class_weights: ClassWeights) -> nn.Module:
    """Binary cross-entropy of a multi-label dataset.

    Args:
        counts: (K, 2) how often each target is stated as 0 and as 1 in the training part, each at least once.
        class_weights: ``balanced`` makes both answers to a target weigh the same; ``none`` leaves them as they are.
    """
    negative, positive = counts.float().unbind(dim=1)
    return MaskedBinaryCrossEntropy(negative / positive if class_weights == "balanced" else torch.ones(len(counts)))
