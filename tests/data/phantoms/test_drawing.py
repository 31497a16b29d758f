"""Frames, curves and filled shapes against plain geometry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr.data.phantoms.drawing import Frame, band, disc, gaussian, resize, smooth

frames = st.builds(
    Frame,
    size=st.integers(16, 64),
    field_cm=st.floats(20, 50),
    rotation=st.floats(-0.5, 0.5),
    shift_cm=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
)


@given(frames)
def test_grid_is_the_inverse_of_to_pixels(frame):
    x, y = frame.grid
    pixels = frame.to_pixels(np.stack([x, y], axis=2).astype(float))

    columns, rows = np.meshgrid(np.arange(frame.size), np.arange(frame.size))
    np.testing.assert_allclose(pixels[..., 0], columns, atol=1e-3)
    np.testing.assert_allclose(pixels[..., 1], rows, atol=1e-3)


@given(frames.filter(lambda frame: frame.field_cm > 30))
def test_filled_disc_has_the_area_of_a_disc_and_its_rim(frame):
    area = frame.fill(disc(0, 0, 8.0)).sum() / frame.pixels_per_cm**2
    pixel = 1 / frame.pixels_per_cm

    assert np.pi * (8 - pixel / 2) ** 2 < area < np.pi * (8 + pixel) ** 2  # cv2 fills the pixels of the outline too


def test_later_shape_covers_an_earlier_one():
    canvas = np.zeros((32, 32), np.uint8)
    Frame(32, 10.0).fill_levels(canvas, [(disc(0, 0, 4), 1.0), (disc(0, 0, 2), 0.4)])

    assert canvas[16, 16] == round(0.4 * 255)
    assert canvas.max() == 255
    assert canvas[0, 0] == 0


def test_stack_of_outlines_is_drawn_as_its_parts():
    frame, parts = Frame(64, 20.0), [disc(-4, 0, 2), disc(3, 2, 2)]
    together, apart = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    frame.fill_levels(together, [(np.stack(parts), 0.7)])
    frame.fill_levels(apart, [(part, 0.7) for part in parts])

    np.testing.assert_array_equal(together, apart)


def test_lines_show_their_width_as_level():
    strokes = Frame(200, 20.0).lines(np.array([[-5.0, 0.0]]), np.array([[5.0, 0.0]]), np.array([0.6]))

    assert strokes.max() == pytest.approx(0.6, abs=0.01)
    assert (strokes[:, 100] > 0.3).sum() == pytest.approx(0.6 * 10, abs=2.1)  # with cv2's antialiased rim


def test_smooth_curve_passes_through_its_control_points():
    points = np.array([[0.0, 0.0], [2.0, 1.0], [3.0, -1.0], [1.0, -2.0]])

    np.testing.assert_allclose(smooth(points)[::8], points)
    opened = smooth(points, closed=False)
    np.testing.assert_allclose(opened[[0, 8, 16, 24]], points)


def test_band_has_the_given_widths_across_its_path():
    path = np.stack([np.linspace(0, 5, 6), np.zeros(6)], axis=1)
    outline = band(path, np.linspace(1, 2, 6))

    np.testing.assert_allclose(np.abs(outline[:6, 1] - outline[::-1][:6, 1]), np.linspace(1, 2, 6))


def test_wide_blur_equals_a_plain_one_closely(rng):
    frame = Frame(128, 40.0)
    image = rng.random((128, 128), dtype=np.float32)

    np.testing.assert_allclose(frame.blur(image, 3.0), gaussian(image, 3.0 * frame.pixels_per_cm), atol=0.01)


def test_resize_keeps_the_mean(rng):
    image = rng.random((60, 60), dtype=np.float32)

    assert resize(image, 20).mean() == pytest.approx(image.mean(), abs=1e-4)
    assert resize(image, 20).shape == (20, 20)
