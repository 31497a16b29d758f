"""Pictures for a browser: the image that a model was asked about, and over it a map of what speaks for a class.

Knows nothing of HTTP or of files. Imports torch only to make maps.
"""

import base64
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from cxr.errors import ConfigError
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.imaging.resize import undo_fit
from cxr.inference.intake import Intake
from cxr.inference.predictor import Predictor

if TYPE_CHECKING:
    from cxr.inference.net_shares import NetShare

LONGER_SIDE = 1024
SHOWN = Preprocess(size=(LONGER_SIDE, LONGER_SIDE), normalizer="unit", aspect="pad")
"""How an image is stored that will be shown."""
OPACITY = 0.7
"""Of the map where it is highest."""


def shown_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """(H, W) at which an image of this shape is shown: its proportions, the longer side 1024."""
    scale = LONGER_SIDE / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def draw_image(intake: Intake) -> str:
    """The image as a PNG of 8 bit grey.

    Args:
        intake: Its last stored image is that of `SHOWN`.

    Returns:
        A data URL.
    """
    whole = undo_fit(intake.stored[-1].astype(np.float32), shown_shape(intake.shape), SHOWN.aspect)
    return _to_url(whole.astype(np.uint8))


def draw_map(predictor: Predictor, intake: Intake, label: int) -> str:
    """What speaks for a class, as a transparent PNG of the proportions of the image.

    Grad-CAM, and where a net keeps no map of the image, occlusion; see `cxr.inference.saliency`. Of several nets the
    mean by their shares.

    Args:
        predictor: Its nets run in torch.
        intake: Stored with the preprocessings of the predictor, and maybe more.
        label: Index of the class.

    Returns:
        A data URL.

    Raises:
        ConfigError: It has none.
    """
    from cxr.inference.net_shares import average_maps, find_nets

    stored = dict(zip(predictor.preprocesses, intake.stored, strict=False))
    shape = shown_shape(intake.shape)
    nets = find_nets(predictor, label)
    if not nets:
        raise ConfigError(
            "expected a model with nets in torch, got one without; take the engine torch, or another model"
        )
    return _to_url(_colour(average_maps(nets, lambda one: _make_map(one, stored[one.net.preprocess], shape))))


def _make_map(one: "NetShare", stored: Stored, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The map of one net on the whole image, (H, W) of `shape`."""
    from cxr.inference.saliency import make_maps

    try:
        (found,) = make_maps(one.net, stored[None], [one.label], "gradcam")
    except ConfigError:  # a transformer
        (found,) = make_maps(one.net, stored[None], [one.label], "occlusion")
    return undo_fit(found, shape, one.net.preprocess.aspect)


def _colour(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(H, W) in [0, 1] to (H, W, 4) blue, green, red and alpha."""
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    return np.dstack([colours, np.rint(levels * OPACITY).astype(np.uint8)])


def _to_url(pixels: npt.NDArray[Any]) -> str:
    _, content = cv2.imencode(".png", pixels)
    return "data:image/png;base64," + base64.b64encode(content.tobytes()).decode()
