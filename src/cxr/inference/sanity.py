"""Whether maps of a net depend on the net: two sanity checks (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292).

*Parameters*: the entries of every weight are shuffled within their tensor, first of the head, then of more and more
of the backbone from its end down to the first layer, until nothing that was learnt is left. *Labels*: a net of the same
architecture, started from such shuffled weights, learns random labels of the same images by heart. In both, the maps
must become others. A method whose maps stay alike shows the image and not what the net does with it.
An even map has no ranks: a pair with one tells nothing, and a method that mostly gives such maps is undecided.

Knows nothing of how a map is made: a method is any function of predictor, stored images and classes. Not guaranteed:
that a method that passes is right.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional
from torchmetrics.functional.image import structural_similarity_index_measure

from cxr.errors import ConfigError
from cxr.imaging.preprocess import Stored
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.saliency import Labels, Maps

Explain = Callable[[NetPredictor, Stored, Labels], Maps]

STAGES = 4
"""Steps in which the backbone is shuffled."""
LIMIT = 0.7
"""From this rank correlation on two maps share half of the variance of their ranks, and count as unchanged."""
EPOCHS, BATCH, LEARNING_RATE = 30, 8, 1e-3
LEARNT = 0.9
COMPARABLE = 0.5
"""Share of the images that must have an uneven map of both nets, below which a check decides nothing."""


@dataclass(frozen=True)
class Likeness:
    """How alike the maps of N images are to those of the same images by another net.

    Attributes:
        check: 'parameters' or 'labels'.
        net: What the other net is, in words.
        spearman: Mean rank correlation of the pixels, -1 to 1; None where no pair of maps has one.
        ssim: Mean structural similarity (Wang et al. 2004), -1 to 1, of the same pairs.
        compared: Share of the images whose maps are both uneven.
    """

    check: str
    net: str
    spearman: float | None
    ssim: float | None
    compared: float = 1.0


@dataclass(frozen=True)
class Sanity:
    """The result for one method.

    Attributes:
        rows: One for each other net.
        memorised: Share of the random labels that the net of the second check learnt.
    """

    rows: tuple[Likeness, ...]
    memorised: float

    @property
    def failed(self) -> list[str]:
        """The checks that the method failed: its maps stay alike when nothing learnt is left."""
        decisive = [row for row in self._last if row.compared >= COMPARABLE]
        return [row.check for row in decisive if row.spearman is not None and row.spearman >= LIMIT]

    @property
    def _last(self) -> list[Likeness]:
        """Of each check the net in which nothing learnt is left."""
        return list({row.check: row for row in self.rows}.values())

    @property
    def verdict(self) -> str:
        """A sentence that begins with failed, undecided or passed."""
        if self.failed:
            return f"failed ({', '.join(self.failed)}): the maps hardly depend on the net; do not read them"
        if any(row.compared < COMPARABLE for row in self._last):
            return "undecided: too many maps are even, so there is little to compare"
        if self.memorised < LEARNT:
            return "undecided: passed for parameters, but the random labels were not learnt"
        return "passed: the maps change with the parameters and with the labels"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [asdict(row) for row in self.rows]
        return {
            "state": self.verdict.split()[0].strip(":"),
            "verdict": self.verdict,
            "failed": self.failed,
            "limit": LIMIT,
            "memorised": self.memorised,
            "rows": rows,
        }


def check_method(explain: Explain, predictor: NetPredictor, stored: Stored, labels: Labels, seed: int = 0) -> Sanity:
    """Run both checks.

    Args:
        explain: The method.
        predictor: Of a bundle; it is left as it is.
        stored: (N, h, w) images, at least two.
        labels: (N,) the class that is explained in each.
        seed: Of the shuffling and of the random labels.

    Raises:
        ConfigError: Fewer than two images.
    """
    if len(stored) < 2:
        raise ConfigError(f"expected at least 2 images for a sanity check, got {len(stored)}; choose more")
    maps = explain(predictor, stored, labels)
    nets = list(shuffle_parameters(predictor, stored, seed))
    rows = [_compare("parameters", name, maps, explain(other, stored, labels)) for name, other in nets]
    trained, memorised = learn_random_labels(nets[-1][1], stored, seed)
    rows.append(_compare("labels", "trained on random labels", maps, explain(trained, stored, labels)))
    return Sanity(tuple(rows), memorised)


def shuffle_parameters(predictor: NetPredictor, stored: Stored, seed: int) -> Iterator[tuple[str, NetPredictor]]:
    """The predictor with more and more of its layers shuffled, from the head down; each with a name.

    Batch norm then takes the statistics of `stored`, so that signals neither vanish nor explode.
    """
    generator = torch.Generator().manual_seed(seed)
    net = copy.deepcopy(predictor.net)
    layers = [layer for layer in net.get_submodule("backbone").modules() if _has_own_weights(layer)]
    groups = [list(group) for group in np.array_split(np.arange(len(layers))[::-1], min(STAGES, len(layers)))]
    stages = [("head", [*net.get_submodule("head").modules()])]
    stages += [(_name_stage(i + 1, len(groups)), [layers[j] for j in group]) for i, group in enumerate(groups)]
    for name, group in stages:
        for layer in group:
            _shuffle(layer, generator)
        shuffled = replace(predictor, net=copy.deepcopy(net))
        _renew_batch_norm(shuffled, stored)
        yield name, shuffled


def _name_stage(stage: int, stages: int) -> str:
    return "all layers" if stage == stages else f"head and last {stage}/{stages} of the backbone"


def _has_own_weights(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters(recurse=False))


@torch.no_grad()
def _shuffle(layer: nn.Module, generator: torch.Generator) -> None:
    """Permute the entries of each of the layer's own tensors, which keeps their distribution."""
    for parameter in layer.parameters(recurse=False):
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view(parameter.shape))


@torch.no_grad()
def _renew_batch_norm(predictor: NetPredictor, stored: Stored) -> None:
    norms = [module for module in predictor.net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train().momentum = None
    for images in _batches(predictor, stored, np.arange(len(stored))):
        predictor.net(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.eval().momentum = momentum


def learn_random_labels(predictor: NetPredictor, stored: Stored, seed: int) -> tuple[NetPredictor, float]:
    """Train a copy of a predictor on random labels of some images, for `EPOCHS` epochs without augmentation.

    Returns:
        The trained copy, and the share of the random labels that it gives back.
    """
    rng = np.random.default_rng(seed)
    other = replace(predictor, net=copy.deepcopy(predictor.net).requires_grad_(True))
    labels = _draw_labels(predictor, len(stored), rng)
    optimizer = torch.optim.Adam(other.net.parameters(), lr=LEARNING_RATE)
    _only_norms_train(other.net)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            order = rng.permutation(len(stored))
            for some, images in zip(_divide(order), _batches(other, stored, order), strict=True):
                loss = _loss(other.net(images), labels[some].to(other.device), other.multilabel)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    _renew_batch_norm(other, stored)
    other.net.eval()
    return other, _share_learnt(other, stored, labels)


def _only_norms_train(net: nn.Module) -> None:
    """Dropout would only slow the learning by heart."""
    for module in net.eval().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()


def _draw_labels(predictor: NetPredictor, count: int, rng: np.random.Generator) -> torch.Tensor:
    classes = len(predictor.class_names)
    if predictor.multilabel:
        return torch.from_numpy(rng.integers(0, 2, (count, classes))).float()
    return torch.from_numpy(rng.permutation(np.arange(count) % classes))


def _loss(logits: torch.Tensor, target: torch.Tensor, multilabel: bool) -> torch.Tensor:
    if multilabel:
        return functional.binary_cross_entropy_with_logits(logits, target)
    return functional.cross_entropy(logits, target)


@torch.no_grad()
def _share_learnt(predictor: NetPredictor, stored: Stored, labels: torch.Tensor) -> float:
    batches = _batches(predictor, stored, np.arange(len(stored)))
    logits = torch.cat([predictor.net(images) for images in batches]).cpu()
    preds = (logits > 0).float() if predictor.multilabel else logits.argmax(dim=1)
    return float((preds == labels).float().mean())


def _batches(predictor: NetPredictor, stored: Stored, rows: npt.NDArray[np.int64]) -> Iterator[torch.Tensor]:
    for some in _divide(rows):
        yield torch.from_numpy(predictor.preprocess.finish(stored[some])).to(predictor.device)


def _divide(rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Batches of nearly the same size: batch norm cannot learn from one image alone whose features are of one place."""
    return np.array_split(rows, -(-len(rows) // BATCH))


def _compare(check: str, name: str, maps: Maps, others: Maps) -> Likeness:
    uneven = _is_uneven(maps) & _is_uneven(others)
    if not uneven.any():
        return Likeness(check, name, None, None, 0.0)
    maps, others = maps[uneven], others[uneven]
    ranks = float(np.mean([rank_correlation(*pair) for pair in zip(maps, others, strict=True)]))
    first, second = (torch.from_numpy(some)[:, None] for some in (maps, others))
    similarity = float(structural_similarity_index_measure(first, second, data_range=1.0))
    return Likeness(check, name, ranks, similarity, float(uneven.mean()))


def _is_uneven(maps: Maps) -> npt.NDArray[np.bool_]:
    return np.ptp(maps, axis=(1, 2)) > 0


def rank_correlation(first: Maps, second: Maps) -> float:
    """Spearman's correlation of the pixels of two maps (H, W), neither of them even."""
    return float(spearmanr(first, second, axis=None).statistic)
