import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cxr.imaging.resize import resize
from cxr.inference.intake import Intake
from cxr.serving.pictures import SHOWN, _colour, _to_url, draw_image, shown_shape


def read_url(url):
    start, _, content = url.partition(",")
    assert start == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@given(st.tuples(st.integers(1, 9000), st.integers(1, 9000)))
def test_the_longer_side_is_1024_and_proportions_stay(shape):
    shown = shown_shape(shape)
    assert max(shown) == 1024
    assert abs(shown[0] * shape[1] - shown[1] * shape[0]) <= max(shape)


@pytest.mark.parametrize("shape", [(1500, 1000), (30, 77), (1024, 1024)])
def test_an_image_is_shown_as_it_is(shape):
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    found = read_url(draw_image(Intake((SHOWN.store(pixels),), shape, "unknown")))
    np.testing.assert_array_equal(found, np.rint(resize(pixels, shown_shape(shape)) * 255))


def test_a_map_is_transparent_where_nothing_speaks_for_the_class():
    found = read_url(_to_url(_colour(np.array([[0, 0.5, 1]], dtype=np.float32))))
    assert found.shape == (1, 3, 4)
    assert list(found[0, :, 3]) == [0, 90, 178]
    red, green, blue = (int(value) for value in found[0, 2, :3])
    assert red > blue
    assert green > blue
