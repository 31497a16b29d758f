import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from cxr.training.losses import make_cross_entropy, make_focal, weigh_classes


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 3, generator=generator), torch.randint(0, 3, (32,), generator=generator)


def test_balanced_weights_equal_scikit_learns():
    labels = [0] * 10 + [1] * 30 + [2] * 60
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert weigh_classes(torch.tensor([10, 30, 60]), "balanced").tolist() == pytest.approx(expected.tolist())


def test_no_weights_are_none():
    assert weigh_classes(torch.tensor([1, 2]), "none") is None


def test_cross_entropy_uses_weights_and_smoothing(batch):
    logits, target = batch
    counts = torch.tensor([10, 30, 60])
    loss = make_cross_entropy(counts, class_weights="balanced", label_smoothing=0.1)
    weight = counts.sum() / (3 * counts)
    assert loss(logits, target) == functional.cross_entropy(logits, target, weight=weight, label_smoothing=0.1)


@pytest.mark.parametrize("kind", ["none", "balanced"])
def test_focal_loss_without_focus_is_cross_entropy(batch, kind):
    logits, target = batch
    counts = torch.tensor([10, 30, 60])
    focal = make_focal(counts, class_weights=kind, gamma=0.0)
    torch.testing.assert_close(focal(logits, target), make_cross_entropy(counts, kind, 0.0)(logits, target))


def test_focal_loss_by_hand():
    probs = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    focal = make_focal(torch.tensor([1, 1]), class_weights="none", gamma=2.0)
    expected = -(0.1**2 * torch.tensor(0.9).log() + 0.4**2 * torch.tensor(0.6).log()) / 2
    torch.testing.assert_close(focal(probs.log(), torch.tensor([0, 1])), expected)
