import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cxr.errors import ConfigError
from cxr.imaging.resize import resize
from cxr.inference.engines import open_predictor
from cxr.inference.intake import Intake
from cxr.inference.net_shares import NetShare
from cxr.serving.pictures import SHOWN, _colour, _to_url, draw_image, draw_map, shown_shape


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
    found = read_url(draw_image(Intake((SHOWN.store(pixels),), shape)))
    np.testing.assert_array_equal(found, np.rint(resize(pixels, shown_shape(shape)) * 255))


def test_a_map_is_transparent_where_nothing_speaks_for_the_class():
    found = read_url(_to_url(_colour(np.array([[0, 0.5, 1]], dtype=np.float32))))
    assert found.shape == (1, 3, 4)
    assert list(found[0, :, 3]) == [0, 90, 178]
    red, green, blue = (int(value) for value in found[0, 2, :3])
    assert red > blue
    assert green > blue


def test_a_model_without_nets_has_no_map(bundle, monkeypatch):
    monkeypatch.setattr("cxr.inference.net_shares.find_nets", lambda *_: [])
    predictor = open_predictor(bundle)
    intake = Intake(tuple(one.store(np.eye(9, dtype=np.float32)) for one in predictor.preprocesses), (9, 9))
    with pytest.raises(ConfigError, match="expected a model with nets in torch"):
        draw_map(predictor, intake, 0)


@pytest.mark.slow
def test_maps_of_several_nets_are_averaged_by_their_shares(bundle, monkeypatch):
    predictor = open_predictor(bundle)
    maps = {0.2: np.zeros((1, 32, 48), np.float32), 0.8: np.zeros((1, 32, 48), np.float32)}
    maps[0.2][0, :, :24], maps[0.8][0, :, 24:] = 1, 1
    shares = [NetShare(predictor, share, 0) for share in maps]
    monkeypatch.setattr("cxr.inference.net_shares.find_nets", lambda *_: shares)
    drawn = iter(maps.values())
    monkeypatch.setattr("cxr.inference.saliency.make_maps", lambda *_: next(drawn))
    intake = Intake(tuple(one.store(np.eye(32, 48, dtype=np.float32)) for one in predictor.preprocesses), (32, 48))
    alpha = read_url(draw_map(predictor, intake, 0))[..., 3]
    assert (alpha[0, 0], alpha[0, -1]) == (45, 178)
