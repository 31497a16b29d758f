"""Stored images to a table of features for classical models: pixels, descriptors, or what a net makes of them.

The same object makes the table of training and of prediction. Knows nothing of the models that read the table. Imports
torch only for the features of a net.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cxr.errors import ConfigError
from cxr.imaging.descriptors import describe
from cxr.imaging.preprocess import Preprocess, Stored

if TYPE_CHECKING:
    from cxr.inference.net_predictor import NetPredictor

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
    net: "NetPredictor | None" = None

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
            from cxr.inference.embedding import embed_stored

            return embed_stored(self.net, stored)[0]
        images = self.preprocess.finish(stored)[:, 0]
        return describe(images, self.descriptors) if self.descriptors else images.reshape(len(images), -1)

    def to_dict(self) -> dict[str, Any]:
        """Kind, preprocessing and descriptors as plain JSON values; a net is stored beside."""
        return {"kind": self.kind, "descriptors": list(self.descriptors), "preprocess": self.preprocess.to_dict()}


def load_features(settings: Mapping[str, Any], net: Path) -> Features:
    """The features of `Features.to_dict`.

    Args:
        settings: What it gave.
        net: Where the bundle of the net lies, if the kind is an embedding.

    Raises:
        ConfigError: The settings cannot be used.
        WeightsError: The net's bundle is damaged.
    """
    preprocess = Preprocess.from_dict(settings["preprocess"])
    if settings["kind"] != EMBEDDING:
        return Features(settings["kind"], preprocess, tuple(settings["descriptors"]))
    from cxr.inference.bundle import load_net

    predictor = load_net(net)
    return Features(EMBEDDING, predictor.preprocess, (), predictor)
