import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.imaging.stress import (
    STRESSES,
    add_noise,
    bend,
    coarsen,
    compress,
    scale_brightness,
    scale_contrast,
    shift,
    turn,
    zoom,
)

IDS = [f"{one.kind} {one.strength}" for one in STRESSES]


def disc(height=256, width=192):
    """A bright disc that fades, in the middle of a dark image with fine stripes."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2)
    stripes = 0.1 * (columns % 2)
    return np.clip(1 - distance / 96 + stripes, 0.05, 0.95).astype(np.float32)


@pytest.mark.parametrize("stress", STRESSES, ids=IDS)
def test_every_change_changes_an_image_and_keeps_its_kind(stress):
    image = disc()
    changed = stress.apply(image)
    assert changed.shape == image.shape
    assert changed.dtype == np.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert np.abs(changed - image).max() > 0.01
    np.testing.assert_array_equal(stress.apply(image), changed)


@pytest.mark.parametrize("stress", STRESSES, ids=IDS)
@settings(max_examples=5, deadline=None)
@given(height=st.integers(2, 90), width=st.integers(2, 90), seed=st.integers(0, 9))
def test_images_of_any_size_are_taken(stress, height, width, seed):
    image = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    changed = stress.apply(image)
    assert changed.shape == (height, width)
    assert np.isfinite(changed).all()


def test_exposure_is_what_it_says():
    image = np.array([[0.2, 0.4], [0.6, 0.8]], np.float32)
    np.testing.assert_allclose(scale_brightness(0.5, image), image / 2)
    np.testing.assert_allclose(scale_contrast(0.5, image), 0.5 + (image - 0.5) / 2, atol=1e-6)
    np.testing.assert_allclose(bend(2.0, image), image**2, rtol=1e-6)


def centre(image):
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return (rows * image).sum() / image.sum(), (columns * image).sum() / image.sum()


def test_geometry_is_what_it_says():
    image = np.zeros((61, 41), np.float32)
    image[25:36, 15:26] = 1
    assert np.allclose(centre(zoom(1.5, image)), (30, 20), atol=0.1)
    assert zoom(1.5, image).sum() == pytest.approx(1.5**2 * image.sum(), rel=0.03)
    assert np.allclose(centre(shift(0.1, image)), (36.1, 24.1), atol=0.1)
    bar = np.zeros((61, 61), np.float32)
    bar[:31, 30] = 1  # from the middle upwards: turned anticlockwise it leans to the left
    assert centre(turn(45, bar))[1] < 25


def test_coarse_images_lose_what_is_fine():
    stripes = np.tile(np.array([0, 1], np.float32), (64, 32))
    assert coarsen(32, stripes).std() < 0.05
    np.testing.assert_allclose(coarsen(64, stripes), stripes)
    np.testing.assert_allclose(coarsen(1000, stripes), stripes)


def test_noise_has_its_deviation_and_jpeg_its_loss():
    grey = np.full((128, 128), 0.5, np.float32)
    assert (add_noise(0.05, grey) - grey).std() == pytest.approx(0.05, rel=0.05)
    noisy = add_noise(0.1, grey)
    assert np.abs(compress(95, noisy) - noisy).mean() < np.abs(compress(10, noisy) - noisy).mean() / 2
