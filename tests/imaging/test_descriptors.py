import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import hog, local_binary_pattern

from cxr.errors import ConfigError, MissingExtraError
from cxr.imaging import descriptors
from cxr.imaging.descriptors import DESCRIPTORS, describe

IMAGES = np.random.default_rng(0).random((3, 100, 130)).astype(np.float32)


@pytest.mark.parametrize(("name", "columns"), [("brightness", 20 * 26), ("gradients", 5 * 7 * 4 * 8), ("texture", 900)])
def test_sizes_and_ranges(name, columns):
    table = describe(IMAGES, [name])
    assert table.shape == (3, columns)
    assert table.dtype == np.float32
    assert 0 <= table.min() < table.max() <= 1


def test_kinds_stand_side_by_side_in_the_order_asked_for():
    both = describe(IMAGES, ["texture", "brightness"])
    np.testing.assert_array_equal(both, np.hstack([describe(IMAGES, [one]) for one in ("texture", "brightness")]))


def test_gradients_are_those_of_scikit_image():
    stored = np.rint(IMAGES[0] * 255).astype(np.float64) / 255
    expected = hog(stored, orientations=8, pixels_per_cell=(16, 16), cells_per_block=(2, 2))
    np.testing.assert_allclose(describe(IMAGES[:1], ["gradients"])[0], expected, atol=1e-6)


def test_texture_is_the_root_of_the_shares_of_patterns_in_a_field():
    whole = np.rint(IMAGES[0] * 255).astype(np.uint8)
    field = local_binary_pattern(whole, 8, 1, "uniform")[:20, :22]
    shares = np.bincount(field.astype(int).ravel(), minlength=10) / field.size
    np.testing.assert_allclose(describe(IMAGES[:1], ["texture"])[0, :10] ** 2, shares, atol=1e-6)


@given(gain=st.floats(0.5, 1.0), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_brightness_ignores_how_bright_an_image_is(gain, seed):
    ranks = np.random.default_rng(seed).permutation(64 * 64).reshape(1, 64, 64) // 64
    images = (ranks * 2 / 255).astype(np.float32)
    halved = (ranks / 255).astype(np.float32)
    np.testing.assert_array_equal(describe(images, ["brightness"]), describe(halved, ["brightness"]))


def test_rows_do_not_depend_on_each_other():
    np.testing.assert_array_equal(describe(IMAGES[1:2], list(DESCRIPTORS))[0], describe(IMAGES, list(DESCRIPTORS))[1])


@pytest.mark.parametrize("names", [["colour"], []])
def test_unknown_descriptors(names):
    with pytest.raises(ConfigError, match="expected descriptors among brightness, gradients, texture, got"):
        describe(IMAGES, names)


def test_images_that_are_too_small():
    with pytest.raises(
        ConfigError, match=r"at least 32 x 32 pixels to describe, got 31 x 40; choose a larger plan.size"
    ):
        describe(IMAGES[:, :31, :40], ["gradients"])


def test_without_scikit_image(monkeypatch):
    def refuse(module, extra):
        raise MissingExtraError(f"{module}, {extra}")

    monkeypatch.setattr(descriptors, "require_extra", refuse)
    with pytest.raises(MissingExtraError, match="skimage, automl"):
        describe(IMAGES, ["texture"])
