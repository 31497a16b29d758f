"""A net as an ONNX graph: what `cxr.inference.onnx_predictor` runs. Knows nothing of bundles and of training."""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cxr.errors import require_extra
from cxr.imaging.preprocess import Preprocess
from cxr.inference.onnx_predictor import EMBEDDING, EXTRA, IMAGES, LOGITS
from cxr.models.head import Classifier
from cxr.models.views import SeveralViews

OPSET = 18
"""The first with everything that the nets need; what reads it is onnxruntime 1.14 or later."""


class _BothAnswers(nn.Module):
    """Logits and the input of the head; what both need is one node of the graph."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net.backbone(images)
        logits = self.net(images) if isinstance(self.net, SeveralViews) else self.net.head(features)
        return logits, features


def make_graph(net: Classifier, preprocess: Preprocess) -> bytes:
    """Trace a net.

    Args:
        net: In evaluation mode; several views are part of the graph.
        preprocess: What finishes its images, which decides the size that the graph takes.

    Returns:
        From ``images`` (B, C, H, W), B from 1 free, to ``logits`` (B, K) and ``embedding`` (B, F), float32.

    Raises:
        MissingExtraError: What torch exports with is not installed.
    """
    for module in ("onnx", "onnxscript"):
        require_extra(module, EXTRA)
    example = torch.zeros(2, preprocess.channels, *preprocess.size)
    traced = copy.deepcopy(_BothAnswers(net)).float().cpu().eval()
    with _quiet():
        program = torch.onnx.export(
            traced, (example,), input_names=[IMAGES], output_names=[LOGITS, EMBEDDING], opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None  # without a file to write to it is returned
    graph: bytes = program.model_proto.SerializeToString()
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is told that torch says of its own parts while it exports."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
