"""What the best possible observer could achieve on the phantoms. Knows nothing of files or models.

The derivation. Inside the lungs an image is `anatomy + air * (texture + findings) + quantum noise`. Everything that
does not depend on the class (anatomy, pose, exposure, marker, header) is drawn from random streams of its own, so that
a study in which no finding was drawn has the same distribution whatever its class. Take a pair of images, one of each
of two classes, and tell an observer both anatomies, poses and exposures, the exact shape, place and strength of the
findings of both images, and only not which findings belong to which image. What is left unknown is the texture, a
stationary Gaussian field of known spectrum, and the quantum noise. For that observer the prewhitening matched filter is
optimal (Barrett & Myers, Foundations of Image Science, ch. 13); with findings q the squared detectability is

    d'^2 = sum over frequencies of |Q|^2 / (power of texture + power of noise),

and an image without finding has d' = 0. The findings of a pair differ by at most d'_i + d'_j (triangle inequality),
hence the pair is put in the right order with a probability of at most Phi((d'_i + d'_j) / sqrt(2)). No score can know
more than that observer, and an AUROC is the share of rightly ordered pairs:

    AUROC <= mean over pairs (i positive, j negative) of Phi((d'_i + d'_j) / sqrt(2)).

It is a bound for the test set at hand, up to sampling error, not what a net of finite training data reaches. Where a
marker gives the class away (a confounded source) a pair counts as ordered rightly.
"""

import math
from functools import cache

import numpy as np
import pandas as pd
from scipy.special import ndtr

from cxr.data.phantoms.drawing import Array

GRID = 192  # pixels per side of the grid on which texture and findings are drawn
_CORNER = 0.12  # cycles per cm at which the texture's power starts to fall
_SLOPE = 1.5  # power falls with frequency to the minus 3, as anatomical noise in radiographs does


@cache
def texture_amplitude(field_cm: float) -> Array:
    """Amplitude of a lung texture of unit variance at each frequency of `rfft2`: (GRID, GRID // 2 + 1).

    Args:
        field_cm: Side of the field of view in cm.
    """
    rows, columns = np.fft.fftfreq(GRID, field_cm / GRID), np.fft.rfftfreq(GRID, field_cm / GRID)
    squared = rows[:, None] ** 2 + columns[None, :] ** 2
    power = (1 + squared / _CORNER**2) ** -_SLOPE
    return np.asarray(np.sqrt(power / _mean_power(power)), np.float32)


def draw_texture(field_cm: float, rng: np.random.Generator) -> Array:
    """A lung texture of mean 0 and variance 1: (GRID, GRID)."""
    white = rng.standard_normal((GRID, GRID), np.float32)
    return np.asarray(np.fft.irfft2(np.fft.rfft2(white) * texture_amplitude(field_cm), (GRID, GRID)), np.float32)


def detectability(findings: Array, field_cm: float, texture: float, noise: float) -> float:
    """The d' of the prewhitening matched filter.

    Args:
        findings: (GRID, GRID), share of the air that the findings replace.
        field_cm: Side of the field of view in cm.
        texture: Standard deviation of the lung texture, as a share of the air.
        noise: Standard deviation of the white noise of one pixel of the grid, in the same unit; must be positive.
    """
    spectrum = np.abs(np.fft.rfft2(findings)) ** 2
    floor = (texture * texture_amplitude(field_cm)) ** 2 + noise**2
    return math.sqrt(_mean_power(spectrum / floor))


def best_achievable_auroc(truth: pd.DataFrame, positive: pd.Series) -> float:
    """The bound of the module docstring for a set of phantoms.

    Args:
        truth: Rows of `phantom_truth.csv` with the columns `d_prime` and `gives_class_away`.
        positive: Boolean, aligned with `truth`: the rows of the positive class; all others are negative.

    Returns:
        The greatest AUROC that any score can be expected to reach, in [0.5, 1]; NaN if a class is empty.
    """
    is_positive = positive.to_numpy(dtype=bool)
    d_prime = truth["d_prime"].to_numpy(dtype=float)
    known = truth["gives_class_away"].to_numpy(dtype=bool)
    d_prime = np.where(known, np.inf, d_prime)
    first, second = d_prime[is_positive], d_prime[~is_positive]
    if len(first) == 0 or len(second) == 0:
        return math.nan
    return float(np.mean([ndtr((d + second) / math.sqrt(2)).mean() for d in first]))


def _mean_power(spectrum: np.ndarray) -> float:
    """Variance of the field whose squared `rfft2` is `spectrum * GRID ** 2` (Parseval, the halved axis made whole)."""
    whole = 2 * spectrum.sum(dtype=float) - spectrum[:, 0].sum(dtype=float) - spectrum[:, -1].sum(dtype=float)
    return float(whole / GRID**2)
