"""A predictor that is one net as an ONNX graph, which onnxruntime runs on the CPU. Imports no torch.

Knows nothing of how a graph is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr.imaging.preprocess import Preprocess
from cxr.inference.description import described_answer, read_checked
from cxr.inference.embedding import Embeddings, Logits, OneNet
from cxr.inference.onnx_session import open_session
from cxr.inference.tensors import read_outliers

EXTRA = "export"
IMAGES, LOGITS, EMBEDDING = "images", "logits", "embedding"


@dataclass(frozen=True, kw_only=True)
class OnnxPredictor(OneNet):
    """Images to probabilities by an ONNX graph.

    Attributes:
        session: From ``images`` (B, C, H, W) to ``logits`` (B, K) and ``embedding`` (B, F).
    """

    session: Any

    def ask(self, images: npt.NDArray[np.float32]) -> Logits:
        """See `OneNet.ask`."""
        logits: Logits = self.session.run([LOGITS], {IMAGES: images})[0]
        return logits

    def embed(self, images: npt.NDArray[np.float32]) -> tuple[Embeddings, Logits]:
        """See `OneNet.embed`."""
        if len(images) == 0:  # some graphs cannot reshape what is empty
            one = self.embed(np.zeros((1, *images.shape[1:]), dtype=np.float32))
            return one[0][:0], one[1][:0]
        embeddings, logits = self.session.run([EMBEDDING, LOGITS], {IMAGES: images})
        return embeddings, logits


def load_onnx(folder: Path, description: Mapping[str, Any], graph: str, threads: int | None = None) -> OnnxPredictor:
    """Make the predictor of a net's bundle that was exported.

    Args:
        folder: The bundle.
        description: Its ``bundle.json``.
        graph: File name of the graph.
        threads: Compute threads; None is one per core.

    Raises:
        WeightsError: A file is missing or damaged.
        MissingExtraError: onnxruntime is not installed.
    """
    session = open_session(read_checked(folder, graph, description), [IMAGES], [LOGITS, EMBEDDING], threads, EXTRA)
    preprocess = Preprocess.from_dict(description["preprocess"])
    taken, given = session.get_inputs()[0].shape[1:], [preprocess.channels, *preprocess.size]
    if any(isinstance(side, int) and side != own for side, own in zip(taken, given, strict=True)):
        raise ValueError(f"{graph} takes images of shape {taken}, the preprocessing gives {given}")
    return OnnxPredictor(
        session=session,
        preprocess=preprocess,
        outliers=read_outliers(folder, description),
        **described_answer(description),
    )
