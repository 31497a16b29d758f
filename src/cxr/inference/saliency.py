"""Where in an image a net finds what speaks for a class. Knows nothing of labels, files or how maps are drawn.

What is explained is the log-odds of the class: its logit less the logarithm of the summed exponentials of the others
(of a multi-label net, its logit). Unlike a logit it does not change when all of them do, and unlike a probability its
gradient does not vanish where the net is certain. Not guaranteed: that a map shows why the net decides as it does;
`cxr.inference.sanity` tests whether it depends on the net at all.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from cxr.errors import ConfigError
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.inference.net_predictor import NetPredictor
from cxr.models.head import Classifier
from cxr.models.views import single_view

Maps = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

IG_STEPS = 20
WINDOW, STRIDE = 1 / 6, 1 / 8
"""Sides of the occluding window and of its steps, as shares of the image's sides."""
BLUR = 1 / 64
"""Standard deviation with which attributions of single pixels are smoothed, as a share of the image's sides."""


@dataclass(frozen=True)
class _Question:
    """One batch to explain: images (B, C, H, W), the class of each (B,), and how black looks to the net (C,)."""

    model: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    black: torch.Tensor


class LogOdds(nn.Module):
    """Images to the log-odds (B, K) of each class against all others."""

    def __init__(self, net: nn.Module, multilabel: bool) -> None:
        super().__init__()
        self.net = net
        self.multilabel = multilabel

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, K) log-odds of images (B, C, H, W)."""
        logits: torch.Tensor = self.net(images)
        if self.multilabel:
            return logits
        own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        others = logits[:, None, :].masked_fill(own, -torch.inf).logsumexp(dim=2)
        return logits - others


def make_maps(
    predictor: NetPredictor,
    stored: Stored,
    labels: Sequence[int] | Labels,
    method: str = "gradcam",
    batch_size: int = 16,
) -> Maps:
    """Explain a class of each stored image.

    Args:
        predictor: Of a bundle; it is left as it is.
        stored: (N, h, w) what `predictor.preprocess.store` gives; N may be 0.
        labels: (N,) index of the class to explain in each image.
        method: A key of `METHODS`.
        batch_size: Images that go through the net at once.

    Returns:
        (N, h, w) float32 in [0, 1]: what speaks for the class, the highest value of each map 1. A map where nothing
        does is 0 everywhere.

    Raises:
        ImageError: The images are of another type than the bundle's preprocessing stores.
        ConfigError: The method is unknown or not to be had for this net, or images and labels do not fit.
    """
    _check(predictor, stored, labels, method)
    with _explained_copy(predictor) as model:
        attribute = METHODS[method](predictor.preprocess, model)
        black = torch.from_numpy(predictor.preprocess.black).to(predictor.device)
        maps = [np.zeros((0, *predictor.preprocess.size), np.float32)]
        for start in range(0, len(stored), batch_size):
            batch = slice(start, start + batch_size)
            images = torch.from_numpy(predictor.preprocess.finish(stored[batch])).to(predictor.device)
            classes = torch.as_tensor(np.asarray(labels[batch], dtype=np.int64), device=predictor.device)
            images = images.to(memory_format=torch.channels_last)  # half the time on a CPU
            maps.append(_scale(attribute(_Question(model, images, classes, black))))
    return np.concatenate(maps)


def find_cam_layer(net: Classifier, size: tuple[int, int]) -> nn.Module:
    """The last layer of a backbone that still has a map of the image: from there on the net only pools.

    Args:
        net: In eval mode.
        size: (H, W) of its images.

    Raises:
        ConfigError: The net goes on with tokens, or keeps no map; the message offers occlusion.
    """
    trace = _trace(net, size)
    spatial = [i for i, (module, shape) in enumerate(trace) if _is_map(shape, size) and _runs_once(module, trace)]
    usable = [i for i in spatial if not isinstance(trace[i][0], nn.AdaptiveAvgPool2d)]
    if not usable or any(_mixes_places(module, shape) for module, shape in trace[usable[-1] + 1 :]):
        raise ConfigError(
            "expected a net that ends in a map of the image and its pooling, but this one has none, as vision "
            "transformers have none; choose the method occlusion"
        )
    return trace[usable[-1]][0]


def _trace(net: Classifier, size: tuple[int, int]) -> list[tuple[nn.Module, torch.Size]]:
    """Every module inside the backbone with the shape of its output, in the order in which they finish."""
    trace: list[tuple[nn.Module, torch.Size]] = []

    def remember(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            trace.append((module, output.shape))

    hooks = [module.register_forward_hook(remember) for module in net.backbone.modules() if module is not net.backbone]
    try:
        with torch.no_grad():
            device = next(net.parameters()).device
            net.backbone(torch.zeros(1, net.input_contract.channels, *size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return trace


def _is_map(shape: torch.Size, size: tuple[int, int]) -> bool:
    """Whether (B, C, h, w) has more than one place, and the proportions of the image to within a cell."""
    if len(shape) != 4 or shape[2] * shape[3] == 1:
        return False
    return abs(shape[2] * size[1] / size[0] - shape[3]) <= 1


def _runs_once(module: nn.Module, trace: list[tuple[nn.Module, torch.Size]]) -> bool:
    return sum(other is module for other, _ in trace) == 1


def _mixes_places(module: nn.Module, shape: torch.Size) -> bool:
    """Whether a layer with weights still has several places, as tokens (B, N, C) or channels last (B, h, w, C)."""
    learned = any(True for _ in module.parameters(recurse=False))
    return learned and len(shape) > 2 and (len(shape) == 3 or shape[1] * shape[2] * shape[3] > shape[1])


@contextmanager
def _explained_copy(predictor: NetPredictor) -> Iterator[LogOdds]:
    """A copy of the net whose activations do not overwrite their input, which a saliency method must still read.

    Of a net that looks at several views it is the one that looks at the image as it is, which the maps lie over.
    """
    net = copy.deepcopy(single_view(predictor.net)).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    for module in net.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    with torch.enable_grad():
        yield LogOdds(net, predictor.multilabel)


Attribute = Callable[[_Question], torch.Tensor]


def _prepare_grad_cam(preprocess: Preprocess, model: LogOdds) -> Attribute:
    """Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391."""
    from captum.attr import LayerGradCam

    method = LayerGradCam(model, find_cam_layer(model.net, preprocess.size))  # type: ignore[arg-type]

    def attribute(question: _Question) -> torch.Tensor:
        maps = method.attribute(question.images.requires_grad_(), target=question.labels, relu_attributions=True)
        return _enlarge(maps, preprocess.size)

    return attribute


def _prepare_grad_cam_plus_plus(preprocess: Preprocess, model: LogOdds) -> Attribute:
    """Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063, equations 10 and 19.

    The class score is the exponential of the log-odds, whose higher derivatives are powers of the first; the common
    factor exp(score) scales a whole map and is left out.
    """
    layer = find_cam_layer(model.net, preprocess.size)  # type: ignore[arg-type]

    def attribute(question: _Question) -> torch.Tensor:
        features, gradient = _features_and_gradient(layer, question)
        squares, cubes = gradient**2, gradient**3
        weight = 2 * squares + features.sum(dim=(2, 3), keepdim=True) * cubes
        alpha = squares / torch.where(weight == 0, torch.ones_like(weight), weight)
        channels = (alpha * gradient.relu()).sum(dim=(2, 3), keepdim=True)
        return _enlarge((channels * features).sum(dim=1, keepdim=True).relu(), preprocess.size)

    return attribute


def _features_and_gradient(layer: nn.Module, question: _Question) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output (B, F, h, w) and the gradient of the class's log-odds with respect to it."""
    kept: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        scores = question.model(question.images.requires_grad_())
    finally:
        hook.remove()
    own = scores.gather(1, question.labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(own, kept)
    return kept[0].detach(), gradient


def _prepare_occlusion(preprocess: Preprocess, model: LogOdds) -> Attribute:
    """Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901: how much the log-odds fall under a moving window.

    The window shows what a strongly blurred image has there, so that it brings in no edge and no new shadow. The map
    is smoothed by half a step, so that its highest point is in the middle of a place, not at its corner.
    """
    from captum.attr import Occlusion

    method = Occlusion(model)
    window, step = ([max(1, round(share * side)) for side in preprocess.size] for share in (WINDOW, STRIDE))

    def attribute(question: _Question) -> torch.Tensor:
        channels = question.images.shape[1]
        drop = method.attribute(
            question.images, sliding_window_shapes=(channels, *window), strides=(channels, *step),
            baselines=_blur(question.images, 1 / 8), target=question.labels,
        )  # fmt: skip
        return _blur(drop.mean(dim=1, keepdim=True).relu(), STRIDE / 2)[:, 0]

    return attribute


def _prepare_integrated_gradients(preprocess: Preprocess, model: LogOdds) -> Attribute:
    """Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365, from a black image; smoothed to be seen."""
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(model)

    def attribute(question: _Question) -> torch.Tensor:
        black = question.black[:, None, None].expand_as(question.images)
        attributions = method.attribute(
            question.images, black, question.labels, n_steps=IG_STEPS, internal_batch_size=len(question.images)
        )
        return _blur(attributions.sum(dim=1, keepdim=True).relu(), BLUR)[:, 0]

    return attribute


METHODS: dict[str, Callable[[Preprocess, LogOdds], Attribute]] = {
    "gradcam": _prepare_grad_cam,
    "gradcam++": _prepare_grad_cam_plus_plus,
    "occlusion": _prepare_occlusion,
    "integrated_gradients": _prepare_integrated_gradients,
}


def _enlarge(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, 1, h, w) to (B, H, W), linearly."""
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0]


def _blur(images: torch.Tensor, share: float) -> torch.Tensor:
    """Images (B, C, H, W) smoothed by a Gaussian whose standard deviation is that share of their sides."""
    height, width = images.shape[-2:]
    smooth = partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=share * width, sigmaY=share * height)
    planes = images.detach().cpu().numpy().reshape(-1, height, width)
    blurred = np.stack([smooth(plane, borderType=cv2.BORDER_REPLICATE) for plane in planes])
    return torch.from_numpy(blurred).reshape(images.shape).to(images.device)


def _scale(maps: torch.Tensor) -> Maps:
    """(B, H, W) float32 whose highest value is 1, or all 0."""
    values = maps.detach().float().cpu().numpy()
    highest = values.max(axis=(1, 2), keepdims=True)
    return np.clip(np.divide(values, highest, out=np.zeros_like(values), where=highest > 0), 0, 1)


def _check(predictor: NetPredictor, stored: Stored, labels: Sequence[int] | Labels, method: str) -> None:
    if method not in METHODS:
        raise ConfigError(f"expected a method among {', '.join(METHODS)}, got {method!r}; choose one of these")
    if not isinstance(predictor.net, Classifier):
        raise ConfigError(
            f"expected a net of backbone and head, got {type(predictor.net).__name__}; load it from a bundle"
        )
    if stored.shape[1:] != predictor.preprocess.size:
        raise ConfigError(
            f"expected stored images of size {list(predictor.preprocess.size)}, got {list(stored.shape[1:])}; "
            "store them with the preprocessing of the bundle"
        )
    classes = len(predictor.class_names)
    if len(labels) != len(stored) or not all(0 <= int(label) < classes for label in labels):
        raise ConfigError(
            f"expected a class from 0 to {classes - 1} for each of {len(stored)} images, got {list(labels)[:10]}; "
            "give one index per image"
        )
