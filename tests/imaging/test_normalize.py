"""Every normaliser on every bit depth, against references that share no code with it."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cxr.imaging.normalize import NORMALIZERS, clahe, equalize, minmax, percentile, unit

SMALL_IMAGES = arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(0, 1, width=32))


def ramp(bits: int) -> np.ndarray:
    """(256, 256) float32 from 0 to 1 in the levels of `bits`."""
    levels = np.rint(np.linspace(0, 2**bits - 1, 256 * 256)).reshape(256, 256)
    return (levels / (2**bits - 1)).astype(np.float32)


@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_ramps_keep_at_least_200_grey_levels(name, bits):
    result = NORMALIZERS[name](ramp(bits))
    assert len(np.unique(np.rint(result * 255))) >= 200
    assert result.dtype == np.float32
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("name", NORMALIZERS)
def test_bit_depth_does_not_matter(name, chest_like):
    deep, shallow = (np.rint(chest_like * top).astype(np.float32) / np.float32(top) for top in (65535, 1023))
    np.testing.assert_allclose(NORMALIZERS[name](deep), NORMALIZERS[name](shallow), atol=0.03)


@pytest.mark.parametrize("name", sorted(set(NORMALIZERS) - {"unit"}))
def test_exposure_does_not_matter(name, chest_like):
    image = chest_like.astype(np.float32)
    np.testing.assert_allclose(NORMALIZERS[name](image * 0.3 + 0.2), NORMALIZERS[name](image), atol=0.02)


@pytest.mark.parametrize("value", [0, 0.25, 1])
@pytest.mark.parametrize("name", sorted(set(NORMALIZERS) - {"unit"}))
def test_constant_image_is_black(name, value):
    np.testing.assert_array_equal(NORMALIZERS[name](np.full((9, 7), value, dtype=np.float32)), 0)


@settings(max_examples=60, deadline=None)
@given(image=SMALL_IMAGES, name=st.sampled_from(sorted(NORMALIZERS)))
def test_range_and_shape_hold_for_any_image(image, name):
    result = NORMALIZERS[name](image)
    assert result.shape == image.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


@settings(max_examples=60, deadline=None)
@given(image=SMALL_IMAGES, name=st.sampled_from(["unit", "minmax", "equalize", "percentile"]))
def test_global_normalisers_never_swap_two_pixels(image, name):
    result = NORMALIZERS[name](image).ravel()[np.argsort(image, axis=None)]
    assert (np.diff(result) >= 0).all()


def test_unit_changes_nothing(chest_like):
    np.testing.assert_array_equal(unit(chest_like.astype(np.float32)), chest_like.astype(np.float32))


def test_minmax(chest_like):
    np.testing.assert_allclose(minmax((chest_like * 0.5 + 0.1).astype(np.float32)), chest_like, atol=1e-6)


def test_percentile_agrees_with_numpy(chest_like):
    image = chest_like.astype(np.float32)
    image[0, :3] = 1
    low, high = np.percentile(image, (1, 99), method="inverted_cdf")
    np.testing.assert_allclose(percentile(image), np.clip((image - low) / (high - low), 0, 1), atol=1e-4)


def test_percentile_of_a_nearly_empty_image_is_minmax():
    image = np.zeros((100, 100), dtype=np.float32)
    image[0, 0] = 0.5
    np.testing.assert_array_equal(percentile(image), image * 2)


def test_equalize_is_the_rank_of_each_pixel(chest_like):
    image = np.rint(chest_like**3 * 4095).astype(np.float32) / np.float32(4095)
    ranks = np.searchsorted(np.sort(image, axis=None), image, side="right")
    darkest = np.count_nonzero(image == image.min())
    np.testing.assert_allclose(equalize(image), (ranks - darkest) / (image.size - darkest), atol=1e-6)


def clipped_rank(tile: np.ndarray, value: int) -> float:
    """Share of the tile up to `value`: 256 bins, each clipped at twice the mean, the excess spread evenly."""
    counts = np.bincount(tile.ravel(), minlength=256)
    limit = int(2 * tile.size / 256)
    excess = np.maximum(counts - limit, 0).sum()
    return (np.minimum(counts, limit)[: value + 1].sum() + excess * (value + 1) / 256) / tile.size


def test_clahe_at_the_centre_of_each_tile_is_that_tiles_clipped_rank():
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.random((512, 512)), (0, 0), 20)
    bins = np.rint((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    result = clahe(bins.astype(np.float32) / np.float32(255))
    for row in range(0, 512, 64):
        for column in range(0, 512, 64):
            tile = bins[row : row + 64, column : column + 64]
            expected = clipped_rank(tile, tile[32, 32])
            assert result[row + 32, column + 32] == pytest.approx(expected, abs=0.015)


def test_clahe_raises_local_contrast(chest_like):
    image = cv2.resize(chest_like, (640, 768)).astype(np.float32) * np.float32(0.2)
    image += np.float32(0.002) * np.sin(np.arange(640, dtype=np.float32))
    result = clahe(image)
    patches = (slice(300, 340), slice(100, 140))
    # the clip limit of 2 caps the gain at about 2
    assert np.std(np.diff(result[patches])) > 1.4 * np.std(np.diff(minmax(image)[patches]))
