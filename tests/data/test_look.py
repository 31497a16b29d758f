import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional
from torchvision.transforms.v2 import functional as reference

from cxr.data.augment import DRAWS as OTHER_DRAWS
from cxr.data.look import FIRST_DRAW, LIMITS, LookAugment, soften
from cxr.errors import ConfigError

EVERYTHING = {"gamma": 0.5, "blur": 2.0, "noise": 0.1, "erase": 0.3}


def make_images(count, height=24, width=36):
    return torch.rand((count, 1, height, width), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("magnitudes", [*({name: value} for name, value in EVERYTHING.items()), EVERYTHING])
def test_same_key_and_epoch_give_the_same_image_in_any_batch(magnitudes):
    augment, images = LookAugment(**magnitudes, seed=5), make_images(6)
    whole = augment(images, torch.arange(6), 2)
    torch.rand(3)  # the global state plays no part
    part = LookAugment(**magnitudes, seed=5)(images[[4, 1]], torch.tensor([4, 1]), 2)
    torch.testing.assert_close(part, whole[[4, 1]])
    assert not torch.allclose(augment(images, torch.arange(6), 3), whole, atol=1e-3)
    assert not torch.allclose(whole, images, atol=1e-3)
    assert 0 <= whole.min() <= whole.max() <= 1


def test_draws_are_uniform_and_none_is_a_draw_of_geometry():
    draws = LookAugment(seed=7).draw(np.arange(4000), 3)
    for name, values in draws.items():
        assert stats.kstest(values, stats.uniform(-1, 2).cdf).pvalue > 1e-4, name
    assert len(OTHER_DRAWS) < FIRST_DRAW


def test_gamma_is_torchvisions():
    augment, images = LookAugment(gamma=0.8), make_images(5)
    powers = 1.8 ** augment.draw(np.arange(5), 0)["gamma"]
    assert powers.min() < 1 < powers.max()
    expected = [reference.adjust_gamma(one, power) for one, power in zip(images, powers, strict=True)]
    torch.testing.assert_close(augment(images, torch.arange(5), 0), torch.stack(expected))


def test_a_whole_halving_is_torchs_resize_down_and_up_and_half_of_one_lies_between():
    images = make_images(3)
    coarse = functional.interpolate(functional.avg_pool2d(images, 2), (24, 36), mode="bilinear")
    softened = soften(images, np.array([0.0, 1.0, 0.5]))
    torch.testing.assert_close(softened[0], images[0])
    torch.testing.assert_close(softened[1], coarse[1])
    torch.testing.assert_close(softened[2], (images[2] + coarse[2]) / 2)


def test_each_further_halving_leaves_less_detail():
    detail = [soften(make_images(1), np.array([level]))[0].std().item() for level in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)]
    assert detail == sorted(detail, reverse=True)


def test_an_image_of_one_pixel_can_be_softened():
    assert soften(torch.ones(1, 1, 1, 1), np.array([3.0])).item() == 1


def test_noise_is_white_gaussian_and_of_the_drawn_strength():
    augment = LookAugment(noise=0.1)
    grey = torch.full((8, 1, 128, 128), 0.5)
    noise = (augment(grey, torch.arange(8), 0) - 0.5).double().numpy()[:, 0]
    spread = (augment.draw(np.arange(8), 0)["noise"] + 1) / 2 * 0.1
    np.testing.assert_allclose(noise.std(axis=(1, 2)), spread, rtol=0.03)
    assert stats.kstest(noise[0].ravel() / noise[0].std(), "norm").pvalue > 1e-4
    neighbours = np.corrcoef(noise[0, :, 1:].ravel(), noise[0, :, :-1].ravel())[0, 1]
    images = np.corrcoef(noise.reshape(8, -1)) - np.eye(8)
    assert max(abs(neighbours), np.abs(images).max()) < 0.04  # 5 standard errors


def test_an_erased_box_is_even_of_the_drawn_area_inside_and_no_longer_than_allowed():
    augment, images = LookAugment(erase=0.4), make_images(200, 100, 100)
    changed = (augment(images, torch.arange(200), 0) != images)[:, 0]
    draws = augment.draw(np.arange(200), 0)
    area = changed.flatten(1).double().mean(dim=1).numpy()
    np.testing.assert_allclose(area, (draws["erase"] + 1) / 2 * 0.4, atol=0.02)
    erased = augment(images, torch.arange(200), 0)
    for image, box in zip(erased[:, 0], changed, strict=True):
        assert image[box].unique().numel() <= 1
        tall, wide = box.any(dim=1).sum().item(), box.any(dim=0).sum().item()
        assert max(tall, wide) <= 2 * min(tall, wide) + 2
    assert changed.any(dim=0).any(dim=0).all()  # up to every edge
    assert changed.any(dim=0).any(dim=1).all()


class TestMagnitudes:
    def test_all_zero_is_the_identity(self):
        assert LookAugment().is_identity
        torch.testing.assert_close(LookAugment()(make_images(2), torch.arange(2), 0), make_images(2))

    @pytest.mark.parametrize("name", LIMITS)
    def test_any_magnitude_is_no_identity(self, name):
        assert not LookAugment(**{name: 0.5}).is_identity

    @pytest.mark.parametrize("name", LIMITS)
    @pytest.mark.parametrize("value", [-0.1, 1000, float("nan"), "0.1", None, True])
    def test_impossible_magnitude_is_an_error(self, name, value):
        with pytest.raises(ConfigError, match=rf"expected augment\.{name} to be .* from 0 to .*, got"):
            LookAugment(**{name: value})
