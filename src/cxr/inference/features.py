"""Stored images to a table of features for classical models: pixels, descriptors, or what a net makes of them.

The same object makes the table of training and of prediction. Knows nothing of the models that read the table, or of
what runs a net.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr.errors import ConfigError
from cxr.imaging.descriptors import describe
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.inference.embedding import OneNet
from cxr.inference.predictor import Predictor

OpenNet = Callable[[Path], Predictor]
"""The bundle of a net -> its predictor."""

Table = npt.NDArray[np.float32]

PIXELS, DESCRIPTORS, EMBEDDING = "pixels", "descriptors", "embedding"
KINDS = (PIXELS, DESCRIPTORS, EMBEDDING)


@dataclass(frozen=True)
class Features:
    """What stands in one row for one image.

    Attributes:
        kind: ``pixels``: every pixel, row by row; ``descriptors``: those of `cxr.imaging.descriptors`; ``embedding``:
            the input of a net's head.
        preprocess: What makes a stored image; of an embedding that of its net.
        descriptors: Which, for that kind.
        net: Whose embedding, for that kind.

    Raises:
        ConfigError: Another kind, descriptors or net of another kind, or images with several channels.
    """

    kind: str
    preprocess: Preprocess
    descriptors: Sequence[str] = ()
    net: OneNet | None = None

    def __post_init__(self) -> None:
        given = (self.kind, bool(self.descriptors), self.net is not None)
        wanted = [(PIXELS, False, False), (DESCRIPTORS, True, False), (EMBEDDING, False, True)]
        if given not in wanted:
            raise ConfigError(
                f"expected features of kind {', '.join(KINDS)} with what the kind needs alone, got kind {self.kind!r}, "
                f"descriptors {list(self.descriptors)} and {'a' if self.net is not None else 'no'} net; write the "
                "bundle again"
            )
        if self.net is None and self.preprocess.channels != 1:
            raise ConfigError(
                f"expected one channel to make features of, got preprocess.channels={self.preprocess.channels}; write "
                "the bundle again"
            )

    def __call__(self, stored: Stored) -> Table:
        """The table (N, D) of stored images (N, h, w), N >= 1."""
        if self.net is not None:
            return self.net.embed_stored(stored)[0]
        images = self.preprocess.finish(stored)[:, 0]
        return describe(images, self.descriptors) if self.descriptors else images.reshape(len(images), -1)

    def to_dict(self) -> dict[str, Any]:
        """Kind, preprocessing and descriptors as plain JSON values; a net is stored beside."""
        return {"kind": self.kind, "descriptors": list(self.descriptors), "preprocess": self.preprocess.to_dict()}


def load_features(settings: Mapping[str, Any], net: Path, open_net: OpenNet) -> Features:
    """The features of `Features.to_dict`.

    Args:
        settings: What it gave.
        net: Where the bundle of the net lies, if the kind is an embedding.
        open_net: Makes the predictor of that bundle.

    Raises:
        ConfigError: The settings cannot be used, or the bundle is of another kind than one net.
        WeightsError: The net's bundle is damaged.
    """
    preprocess = Preprocess.from_dict(settings["preprocess"])
    if settings["kind"] != EMBEDDING:
        return Features(settings["kind"], preprocess, tuple(settings["descriptors"]))
    predictor = open_net(net)
    if not isinstance(predictor, OneNet):
        raise ConfigError(f"expected {net} to be the bundle of one net, got another kind; write the bundle again")
    return Features(EMBEDDING, predictor.preprocess, (), predictor)
