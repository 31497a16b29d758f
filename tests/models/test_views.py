import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from torch import nn
from torch.testing import assert_close

from cxr.errors import ConfigError
from cxr.models.build import build_net
from cxr.models.views import VIEWS, SeveralViews, View, mean_logits, move, single_view

SMALL = {"filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 4}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build_net("custom_cnn", 3, **SMALL).eval()


def make_images(count=4, height=24, width=36):
    coarse = torch.rand((count, 1, 6, 9), generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear")


@pytest.mark.parametrize("view", [View(rotation=9.0), View(scale=1.2), View(x=0.1), View(y=-0.1), VIEWS["light"][1]])
def test_a_view_moves_pixels_where_scipy_says(view):
    image = make_images(1)
    angle = np.radians(view.rotation)
    turned = view.scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # row, column
    centre, shift = np.array([23 / 2, 35 / 2]), np.array([view.y * 24, view.x * 36])
    back = np.linalg.inv(turned)
    expected = ndimage.affine_transform(
        image[0, 0].numpy(), back, centre - back @ (centre + shift), order=1, mode="nearest"
    )
    np.testing.assert_allclose(move(image, view)[0, 0].numpy(), expected, atol=1e-4)


def test_what_comes_from_outside_repeats_the_edge_whatever_black_is():
    images = torch.full((1, 1, 20, 20), -1024.0)
    for views in VIEWS.values():
        for view in views:
            assert_close(move(images, view), images)


@pytest.mark.parametrize("views", VIEWS)
def test_views_see_the_image_itself_small_moves_and_no_mirror_image(views):
    assert View() in VIEWS[views]
    for view in VIEWS[views]:
        assert abs(view.rotation) <= 10
        assert 0.9 <= view.scale <= 1.1
        assert max(abs(view.x), abs(view.y)) <= 0.05


def test_the_answer_is_the_mean_of_the_probabilities(net):
    images = make_images()
    several = SeveralViews(net, "light", multilabel=False)
    expected = torch.stack([net(move(images, view)).softmax(dim=1) for view in VIEWS["light"]]).mean(dim=0)
    assert_close(several(images).softmax(dim=1), expected)
    assert not torch.allclose(expected, net(images).softmax(dim=1), atol=1e-6)
    independent = SeveralViews(net, "light", multilabel=True)
    expected = torch.stack([net(move(images, view)).sigmoid() for view in VIEWS["light"]]).mean(dim=0)
    assert_close(independent(images).sigmoid(), expected)


@pytest.mark.parametrize("multilabel", [True, False])
def test_views_that_agree_change_nothing_and_certain_ones_stay_finite(multilabel):
    logits = torch.tensor([[-200.0, 300.0], [2.0, -1.0]])
    mean = mean_logits(logits.expand(5, 2, 2), multilabel)
    assert mean.isfinite().all()
    answer = torch.sigmoid if multilabel else (lambda values: values.softmax(dim=1))
    assert_close(answer(mean), answer(logits))


@given(
    logits=arrays(np.float64, (4, 3, 2), elements=st.floats(-30, 30)), order=st.permutations(range(4)),
    multilabel=st.booleans(),
)  # fmt: skip
def test_the_mean_lies_between_the_views_and_ignores_their_order(logits, order, multilabel):
    views = torch.from_numpy(logits)
    answer = torch.sigmoid if multilabel else (lambda values: values.softmax(dim=-1))
    probs, mean = answer(views), answer(mean_logits(views, multilabel))
    assert (mean >= probs.amin(dim=0) - 1e-9).all()
    assert (mean <= probs.amax(dim=0) + 1e-9).all()
    assert_close(answer(mean_logits(views[list(order)], multilabel)), mean)


def test_its_state_is_that_of_the_net(net):
    several = SeveralViews(net, "light", multilabel=False)
    assert several.state_dict().keys() == net.state_dict().keys()
    assert several.input_contract == net.input_contract
    single = single_view(several)
    assert_close(single(make_images()), net(make_images()))
    assert single_view(net) is net


def test_it_exports_with_any_number_of_images(net):
    several = SeveralViews(net, "light", multilabel=False)
    shapes = {"images": {0: torch.export.Dim("batch", min=2, max=64)}}
    program = torch.export.export(several, (make_images(4, 32, 32),), dynamic_shapes=shapes)
    images = make_images(7, 32, 32)
    assert_close(program.module()(images), several(images))


def test_unknown_views_are_refused(net):
    with pytest.raises(ConfigError, match="expected tta to be one of light, got 'heavy'; choose one of these"):
        SeveralViews(net, "heavy", multilabel=False)
