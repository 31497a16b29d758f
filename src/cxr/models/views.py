"""Test-time augmentation: one image seen several times, slightly moved, and one answer.

Knows nothing of any architecture. The views are fixed, so the same image always gets the same answer. None is
mirrored: a chest has a left and a right.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr.models.arguments import check_choice
from cxr.models.head import Classifier


class View(NamedTuple):
    """How an image is moved: `rotation` in degrees, `scale` as a factor, `x` and `y` as shares of the image size."""

    rotation: float = 0.0
    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0


VIEWS: dict[str, tuple[View, ...]] = {
    "light": (
        View(),
        View(rotation=4.0, scale=1.06, x=0.02),
        View(rotation=-4.0, scale=1.06, x=-0.02),
        View(rotation=4.0, scale=0.95, y=0.02),
        View(rotation=-4.0, scale=0.95, y=-0.02),
    ),
}


class SeveralViews(Classifier):
    """A net asked about several views of each image; its answer is the mean of their probabilities.

    Probabilities are averaged, not logits: the mean of softmax, or with `multilabel` of each sigmoid. What is returned
    are logits again, those whose softmax (or sigmoid) is that mean, so that scaling and losses apply to them.
    Backbone and head are those of the net itself, and so are the names of its state.

    Args:
        net: (B, C, H, W) -> logits (B, K).
        views: A key of `VIEWS`.
        multilabel: Whether the K answers are independent of each other.

    Raises:
        ConfigError: No views have this name.
    """

    def __init__(self, net: Classifier, views: str, multilabel: bool) -> None:
        check_choice("tta", views, list(VIEWS))
        super().__init__(net.backbone, net.head, net.input_contract)
        self.views = views
        self.multilabel = multilabel

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K), float32, of images (B, C, H, W) that are preprocessed as `input_contract` says."""
        logits = torch.stack([self.head(self.backbone(move(images, view))) for view in VIEWS[self.views]])
        return mean_logits(logits.float(), self.multilabel)


def single_view(net: nn.Module) -> nn.Module:
    """The net that looks at each image once, as it is; its parts are shared."""
    return Classifier(net.backbone, net.head, net.input_contract) if isinstance(net, SeveralViews) else net


def move(images: Tensor, view: View) -> Tensor:
    """Move images (B, C, H, W) about their centre, bilinearly; what comes from outside repeats the edge."""
    if view == View():
        return images
    height, width = images.shape[-2:]
    cos, sin = (part(math.radians(view.rotation)) / view.scale for part in (math.cos, math.sin))
    x = torch.arange(width, device=images.device) + 0.5 - width / 2 - view.x * width
    y = (torch.arange(height, device=images.device) + 0.5 - height / 2 - view.y * height)[:, None]
    grid = torch.stack([(cos * x + sin * y) * 2 / width, (cos * y - sin * x) * 2 / height], dim=-1)
    grid = grid.to(images.dtype).expand(images.shape[0], height, width, 2)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def mean_logits(logits: Tensor, multilabel: bool) -> Tensor:
    """Logits (B, K) whose probabilities are the mean over the views of those of `logits` (V, B, K)."""
    if multilabel:
        return functional.logsigmoid(logits).logsumexp(dim=0) - functional.logsigmoid(-logits).logsumexp(dim=0)
    return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))
