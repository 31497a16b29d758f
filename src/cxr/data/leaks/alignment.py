"""Whether two images show the same film: one is laid over the other and their fine detail is compared.

Knows nothing of files or parts. Chests of two people agree in the large; ribs, vessels and their crossings do not lie
on top of each other. The transformation is affine and small: re-encoded, resized, brightened, marked, slightly turned
and cropped images of one film are brought to agree, mirrored ones are not.
"""

import cv2
import numpy as np
import numpy.typing as npt

from cxr.data.leaks.candidates import even_out
from cxr.data.leaks.thumbnails import without_bars
from cxr.imaging.resize import resize

Floats = npt.NDArray[np.float32]

SIDE = 128
_STEPS = ((48, 30, 3.0), (96, 15, 5.0))  # side in pixels, iterations, window of the contrast
_DETAIL = (0.7, 2.0)  # band in pixels of `SIDE`
_MOST_SCALING, _MOST_TURNING = 0.2, 0.12
_LEAST_OVERLAP = 0.6
_EDGE = 3  # pixels that a border spoils


def detail_correlation(one: Floats, other: Floats) -> float:
    """Correlation of the fine detail of two images after one is laid over the other.

    Args:
        one: (H, W) grey values from 0 to 255.
        other: Likewise, of any size.

    Returns:
        -1 to 1; -1 where no small transformation brings them together. Exchanging the images changes little.
    """
    first, second = (resize(without_bars(image), (SIDE, SIDE)) for image in (one, other))
    warp = _align(first, second)
    if warp is None:
        return -1.0
    inverse = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(second, warp, (SIDE, SIDE), flags=inverse, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones_like(second), warp, (SIDE, SIDE), flags=inverse) > 0.99
    inside = cv2.erode(inside.astype(np.uint8), np.ones((2 * _EDGE + 1,) * 2, np.uint8)) > 0
    if inside.mean() < _LEAST_OVERLAP:
        return -1.0
    return _correlation(_detail(first)[inside], _detail(laid)[inside])


def _align(first: Floats, second: Floats) -> Floats | None:
    """(2, 3) affine map from pixels of `first` to pixels of `second`, coarse to fine (Evangelidis 2008)."""
    warp, side = np.eye(2, 3, dtype=np.float32), SIDE
    for step, iterations, window in _STEPS:
        warp, side = _rescale(warp, step / side), step
        one, other = (even_out(resize(image, (step, step)), window) for image in (first, second))
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, iterations, 1e-4)
        try:
            _, warp = cv2.findTransformECC(one, other, warp, cv2.MOTION_AFFINE, criteria, None, 5)
        except cv2.error:  # the images have nothing in common
            return None
        if not _is_small(warp):
            return None
    return _rescale(warp, SIDE / side)


def _rescale(warp: Floats, factor: float) -> Floats:
    """The same map between images `factor` times as large; pixel centres lie at whole numbers."""
    centre = np.full(2, (factor - 1) / 2)
    shift = factor * warp[:, 2] + centre - warp[:, :2] @ centre
    return np.column_stack([warp[:, :2], shift]).astype(np.float32)


def _is_small(warp: Floats) -> bool:
    scaling = np.abs(np.diag(warp[:, :2]) - 1).max()
    turning = max(abs(warp[0, 1]), abs(warp[1, 0]))
    return bool(scaling <= _MOST_SCALING and turning <= _MOST_TURNING)


def _detail(image: Floats) -> Floats:
    fine, coarse = (cv2.GaussianBlur(image, (0, 0), sigma) for sigma in _DETAIL)
    band = fine - coarse
    contrast = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), _DETAIL[1]))
    return band / (contrast + np.float32(2))


def _correlation(one: Floats, other: Floats) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return 0.0 if norm == 0 else float(one @ other) / norm
