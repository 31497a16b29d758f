import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr.imaging.preprocess import Preprocess
from cxr.imaging.resize import boxes_to_size, fit_to_size, resize, undo_fit


@pytest.fixture
def noise():
    return np.random.default_rng(0).random((60, 48)).astype(np.float32)


def test_same_size_changes_nothing(noise):
    np.testing.assert_array_equal(resize(noise, noise.shape), noise)


@pytest.mark.parametrize(("height", "width"), [(20, 16), (30, 48), (60, 12)])
def test_shrinking_by_whole_factors_is_the_mean_of_blocks(noise, height, width):
    blocks = noise.reshape(height, 60 // height, width, 48 // width)
    np.testing.assert_allclose(resize(noise, (height, width)), blocks.mean(axis=(1, 3)), atol=1e-6)


def test_growing_is_linear(noise):
    expected = Image.fromarray(noise).resize((96, 180), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(resize(noise, (180, 96)), np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize("size", [(50, 50), (33, 400), (400, 33)])
def test_no_aliasing_even_if_the_other_side_grows(size):
    checks = (np.indices((200, 200)).sum(axis=0) % 2).astype(np.float32)
    assert abs(resize(checks, size) - 0.5).max() < 0.1


TALL, WIDE = (40, 20), (20, 40)
FITTED = [
    # shape, size, aspect, rows and columns of the result that are image
    (TALL, (20, 20), "pad", (slice(0, 20), slice(5, 15))),
    (WIDE, (20, 20), "pad", (slice(5, 15), slice(0, 20))),
    (TALL, (80, 80), "pad", (slice(0, 80), slice(20, 60))),
    (TALL, (21, 20), "pad", (slice(0, 21), slice(5, 15))),
    (TALL, (20, 60), "pad", (slice(0, 20), slice(25, 35))),
    (TALL, (20, 20), "stretch", (slice(0, 20), slice(0, 20))),
    (WIDE, (30, 10), "crop", (slice(0, 30), slice(0, 10))),
    ((500, 1), (32, 32), "pad", (slice(0, 32), slice(15, 16))),
]


@pytest.mark.parametrize(("shape", "size", "aspect", "part"), FITTED)
def test_where_the_image_lands(shape, size, aspect, part):
    result = fit_to_size(np.ones(shape, dtype=np.float32), size, aspect)
    expected = np.zeros(size)
    expected[part] = 1
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "kept"), [(TALL, (slice(10, 30), slice(0, 20))), (WIDE, (slice(0, 20), slice(10, 30)))]
)
def test_crop_keeps_the_centre(shape, kept):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    np.testing.assert_array_equal(fit_to_size(image, (20, 20), "crop"), image[kept])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    aspect=st.sampled_from(["pad", "crop", "stretch"]),
)
def test_size_and_range_hold_for_any_shape(shape, size, aspect):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    result = fit_to_size(image, size, aspect)
    assert result.shape == size
    assert result.dtype == np.float32
    assert result.min() >= 0
    assert result.max() <= image.max() + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["pad", "crop", "stretch"]))
def test_boxes_go_where_a_drawn_rectangle_goes(data, aspect):
    shape = data.draw(st.tuples(st.integers(40, 200), st.integers(40, 200)))
    top, left = (data.draw(st.integers(0, side - 12)) for side in shape)
    height, width = data.draw(st.integers(10, shape[0] - top)), data.draw(st.integers(10, shape[1] - left))
    drawn = np.zeros(shape, np.float32)
    drawn[top : top + height, left : left + width] = 1
    preprocess = Preprocess(size=(96, 64), normalizer="unit", aspect=aspect)
    stored = preprocess.store(drawn)
    boxes = preprocess.place_boxes([(left, top, width, height)], shape)
    expected = np.zeros(stored.shape)
    for x, y, w, h in boxes:
        rows, columns = (np.clip(np.arange(side + 1), *ends) for side, ends in ((96, (y, y + h)), (64, (x, x + w))))
        expected = np.diff(rows)[:, None] * np.diff(columns)  # the share of each pixel that the box covers
    assert abs(stored / 255 - expected).mean() < 0.02
    assert abs(stored.sum() / 255 - expected.sum()) < 0.02 * expected.size


def test_boxes_are_cut_at_the_border_and_lost_outside():
    boxes = [(0, 0, 40, 20), (0, 0, 9, 20), (5, 5, 10, 10)]
    np.testing.assert_allclose(boxes_to_size(boxes, WIDE, (20, 20), "crop"), [[0, 0, 20, 20], [0, 5, 5, 10]])
    np.testing.assert_allclose(boxes_to_size(boxes[:1], TALL, (20, 20), "pad"), [[5, 0, 10, 10]])
    assert boxes_to_size([], TALL, (20, 20), "pad").shape == (0, 4)


@given(shape=st.tuples(st.integers(20, 60), st.integers(20, 60)), aspect=st.sampled_from(["pad", "crop", "stretch"]))
@settings(deadline=None)
def test_what_is_fitted_and_brought_back_lies_where_it_was(shape, aspect):
    rows, columns = np.indices(shape)
    centre = (shape[0] / 2 - 2, shape[1] / 2 + 1)
    blob = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / 18).astype(np.float32)
    back = undo_fit(fit_to_size(blob, (80, 64), aspect), shape, aspect)
    assert back.shape == shape
    assert np.abs(np.array(np.unravel_index(back.argmax(), shape)) - np.round(centre)).max() <= 2


def test_what_was_cut_away_comes_back_as_nothing():
    back = undo_fit(fit_to_size(np.ones((20, 40), np.float32), (20, 20), "crop"), (20, 40), "crop")
    np.testing.assert_array_equal(back, np.repeat([[0, 1, 0]], [20], axis=0).repeat([10, 20, 10], axis=1))
