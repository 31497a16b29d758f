"""Pictures of what a net looks at, beside the answers of `cxr predict`. Names of pictures tell nothing of the files."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from cxr.errors import ConfigError, DataError
from cxr.evaluation.figure_saliency import colour_map
from cxr.explanation.pictures import Pictures, frame_of, make_mean_maps, nets_of
from cxr.imaging.preprocess import Stored
from cxr.imaging.resize import undo_fit
from cxr.inference.intake import Intake, Picture
from cxr.inference.predictor import Predictor, Probs
from cxr.inference.saliency import Maps, find_cam_layer, make_maps
from cxr.models.views import single_view


class Overlays:
    """Draws Grad-CAM maps, or occlusion maps where a net keeps no map of the image, over images.

    Args:
        folder: Where the pictures go.
        predictor: With at least one torch net.

    Raises:
        ConfigError: There is no net to make maps of.
        DataError: The folder cannot be made.
    """

    def __init__(self, folder: Path, predictor: Predictor) -> None:
        self._folder, self._predictor = folder, predictor
        self._explain = partial(make_maps, method=_choose_method(predictor))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"expected a folder for overlays, but {folder} is none ({error.strerror}); choose another --overlays"
            ) from error

    def draw(
        self, numbers: Sequence[int], intakes: Sequence[Intake], stored: Sequence[Stored], probs: Probs
    ) -> list[str]:
        """Write a picture of each of N images with what speaks for its most probable class.

        Args:
            numbers: Of the images in the order in which they were given.
            intakes: With pictures.
            stored: For each preprocessing of the predictor (N, h, w).
            probs: (N, K) what the predictor says.

        Returns:
            The names of the files.
        """
        kinds = dict(zip(self._predictor.preprocesses, stored, strict=True))
        pictures = Pictures([one.shape for one in intakes], kinds, [None] * len(intakes), probs)
        maps = make_mean_maps(self._predictor, self._explain, pictures, probs.argmax(axis=1))
        return [self._write(*one) for one in zip(numbers, intakes, maps, strict=True)]

    def _write(self, number: int, intake: Intake, one: Maps) -> str:
        assert intake.picture is not None
        height, width = intake.picture.shape
        covered = lay_over(intake.picture, undo_fit(one, (height, width), frame_of(self._predictor).aspect))
        name = f"{number:06d}_{hashlib.sha256(intake.picture.tobytes()).hexdigest()[:12]}.png"
        Image.fromarray(covered).save(self._folder / name)
        return name


def lay_over(picture: Picture, one: Maps) -> Picture:
    """(H, W, 3) uint8: a grey picture (H, W) under the colours of a map (H, W) in [0, 1]."""
    colours = colour_map(one)
    opacity = colours[..., 3:]
    mixed = picture[..., None] / 255 * (1 - opacity) + colours[..., :3] * opacity
    return np.rint(mixed * 255).astype(np.uint8)


def _choose_method(predictor: Predictor) -> str:
    try:
        for net in nets_of(predictor):
            find_cam_layer(single_view(net.net), net.preprocess.size)  # type: ignore[arg-type]
    except ConfigError:
        nets_of(predictor)
        return "occlusion"
    return "gradcam"
