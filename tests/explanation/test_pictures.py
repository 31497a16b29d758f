import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.errors import ConfigError
from cxr.explanation.pictures import describe_maps, frame_of, leading_net, make_mean_maps, read_pictures
from cxr.imaging.preprocess import Preprocess
from cxr.inference.combine import Rule
from cxr.inference.ensemble_predictor import EnsemblePredictor
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.predictor import Predictor, Scores
from cxr.models.build import build_net

NET = {"filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}
NAMES = ["well", "ill", "odd"]


class NoNet(Predictor):
    """Says the same of every image."""

    preprocesses = (Preprocess(size=(8, 8)),)

    def score_stored(self, stored):
        n = len(stored[0])
        return Scores(np.full((n, 3), 1 / 3), np.full(n, np.nan), np.zeros(n, bool))


def make_net(size=(32, 32), aspect="stretch", names=NAMES):
    net = build_net("custom_cnn", len(names), **NET).eval()
    return NetPredictor(class_names=list(names), net=net, preprocess=Preprocess(size=size, aspect=aspect))


def ensemble(*members, names=NAMES, rule="soft", **settings):
    return EnsemblePredictor(class_names=list(names), members=members, rule=Rule(rule, settings))


@pytest.fixture
def rows(tmp_path):
    """Three pictures of other shapes, one with a bright corner and a box on it."""
    shapes = [(40, 60), (64, 64), (60, 40)]
    for number, shape in enumerate(shapes):
        pixels = np.full(shape, 60, np.uint8)
        pixels[: shape[0] // 4, : shape[1] // 4] = 250
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    return pd.DataFrame({"image_path": paths, "boxes": [((0, 0, 15, 10),), None, ()]})


def show_brightness(net, stored, labels):
    """Bright places speak for class 0, dark ones for the others."""
    bright = (stored > 128).astype(np.float32)
    return np.where(np.asarray(labels)[:, None, None] == 0, bright, 1 - bright)


def test_each_net_sees_the_pictures_in_its_own_way(rows):
    model = ensemble(make_net((32, 32)), make_net((20, 40), "pad"))
    found = read_pictures(model, rows)
    assert sorted(images.shape for images in found.stored.values()) == [(3, 20, 40), (3, 32, 32)]
    assert found.shapes == [(40, 60), (64, 64), (60, 40)]
    np.testing.assert_allclose(found.boxes[0], [[0, 0, 8, 8]])
    assert found.boxes[1] is None
    assert len(found.boxes[2]) == 0
    expected = model.predict(rows["image_path"].tolist())[["prob_0", "prob_1", "prob_2"]]
    np.testing.assert_allclose(found.probs, expected, atol=1e-6)


def test_maps_of_one_net_are_its_own(rows):
    net = make_net()
    pictures = read_pictures(net, rows)
    labels = np.array([0, 1, 0])
    maps = make_mean_maps(net, show_brightness, pictures, labels)
    np.testing.assert_array_equal(maps, show_brightness(net, pictures.stored[net.preprocess], labels))
    assert describe_maps(net) == []


def test_maps_are_averaged_by_weight_and_scaled(rows):
    first, second = make_net(), make_net()
    maps_of = {id(first): np.array([[1.0, 0.0]]), id(second): np.array([[0.0, 1.0]])}

    def method(net, stored, labels):
        return np.repeat(maps_of[id(net)][None].repeat(16, axis=2).repeat(32, axis=1), len(stored), 0)

    model = ensemble(first, second, weights=[1, 4])
    maps = make_mean_maps(model, method, read_pictures(model, rows), np.array([0, 0, 0]))
    np.testing.assert_allclose(maps[0, 0, [0, 31]], [0.25, 1.0])


@pytest.mark.parametrize(
    ("aspect", "label", "place"),
    [("pad", 0, (slice(0, 8), slice(0, 8))), ("crop", 1, (slice(8, 24), slice(0, 32)))],
)
def test_maps_of_another_frame_show_the_same_place_of_the_picture(rows, aspect, label, place):
    model = ensemble(make_net(), make_net((24, 48), aspect), weights=[0, 1])
    square = read_pictures(model, rows.iloc[1:2])
    (found,) = make_mean_maps(model, show_brightness, square, np.array([label]))
    expected = np.zeros((32, 32))
    expected[place] = 1
    assert found.shape == frame_of(model).size
    assert np.abs(found - expected).mean() < 0.02


def test_a_member_with_its_classes_in_another_order_explains_the_same_class(rows):
    model = ensemble(make_net(), make_net(names=NAMES[::-1]))
    seen = []

    def method(net, stored, labels):
        seen.append((net.class_names[labels[0]], len(stored)))
        return np.ones(stored.shape, np.float32)

    make_mean_maps(model, method, read_pictures(model, rows), np.array([2, 0, 2]))
    assert seen == [("well", 1), ("well", 1), ("odd", 2), ("odd", 2)]


def test_in_one_vs_rest_the_classes_own_net_explains(rows):
    members = [make_net(names=[f"not {name}", name]) for name in NAMES]
    model = ensemble(*members, rule="one_vs_rest")
    seen = []

    def method(net, stored, labels):
        seen.append((net is members[1], labels.tolist()))
        return np.ones(stored.shape, np.float32)

    pictures = read_pictures(model, rows)
    make_mean_maps(model, method, pictures, np.array([1, 1, 1]))
    assert seen == [(True, [1, 1, 1])]
    net, _, labels = leading_net(model, pictures, np.array([1, 0, 2]))
    assert net is members[1]
    assert labels.tolist() == [1, 1, 1]


def test_the_leading_net_is_that_of_the_largest_weight(rows):
    first, second = make_net(), make_net((24, 24), names=NAMES[::-1])
    model = ensemble(first, second, weights=[1, 2])
    net, stored, labels = leading_net(model, read_pictures(model, rows), np.array([0, 1, 2]))
    assert net is second
    assert stored.shape == (3, 24, 24)
    assert labels.tolist() == [2, 1, 0]


def test_members_without_maps_are_left_out_and_told(rows):
    net = make_net()
    model = ensemble(NoNet(class_names=NAMES), net)
    pictures = read_pictures(model, rows)
    labels = np.array([0, 0, 0])
    maps = make_mean_maps(model, show_brightness, pictures, labels)
    np.testing.assert_array_equal(maps, show_brightness(net, pictures.stored[net.preprocess], labels))
    assert describe_maps(model)[-1] == "1 members are no nets, have no maps, and are left out."


def test_a_model_without_any_net_is_refused(rows):
    with pytest.raises(ConfigError, match="expected a model with a net in it, got one without, which has no maps"):
        read_pictures(ensemble(NoNet(class_names=NAMES)), rows)
