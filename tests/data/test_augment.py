import logging

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torchvision.transforms.v2 import functional as reference

from cxr.data.augment import LIMITS, AffineAugment, _make_grid
from cxr.errors import ConfigError

EVERYTHING = {
    "rotation": 20.0,
    "scale": 0.2,
    "shear": 10.0,
    "translate": 0.1,
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "brightness": 0.3,
    "contrast": 0.3,
}
MOVING = {name: value for name, value in EVERYTHING.items() if name not in ("brightness", "contrast")}


def make_images(count: int, height: int = 24, width: int = 36) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand((count, 1, 6, 9), generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def make_dot(height: int, width: int, row: int, column: int) -> torch.Tensor:
    image = torch.zeros(1, 1, height, width)
    image[0, 0, row, column] = 1
    return image


def find_centre(image: torch.Tensor) -> tuple[float, float]:
    """The centre of mass (x, y) in pixels from the image centre."""
    row, column = ndimage.center_of_mass(image[0, 0].numpy())
    height, width = image.shape[-2:]
    return column - (width - 1) / 2, row - (height - 1) / 2


def keys(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


class TestDraws:
    def test_equal_images_in_one_batch_come_out_different(self):
        image = make_images(1).expand(2, 1, 24, 36)
        first, second = AffineAugment(rotation=20)(image, keys(3, 4), 0)
        assert not torch.allclose(first, second, atol=0.01)

    def test_same_key_and_epoch_give_the_same_image_in_any_batch(self):
        augment, image = AffineAugment(**EVERYTHING, seed=5), make_images(6)
        whole = augment(image, torch.arange(6), 2)
        torch.rand(3)  # the global state plays no part
        part = AffineAugment(**EVERYTHING, seed=5)(image[[4, 1]], keys(4, 1), 2)
        torch.testing.assert_close(part, whole[[4, 1]], rtol=0, atol=1e-5)

    @pytest.mark.parametrize(("seed", "epoch", "key"), [(1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (0, 0, 2**40)])
    def test_seed_epoch_and_key_each_change_every_draw(self, seed, epoch, key):
        usual = AffineAugment(seed=0).draw(np.array([0]), 0)
        other = AffineAugment(seed=seed).draw(np.array([key]), epoch)
        assert all(usual[name] != other[name] for name in usual)

    def test_draws_are_uniform_and_uncorrelated(self):
        draws = AffineAugment(seed=7).draw(np.arange(4000), 3)
        for name, values in draws.items():
            assert stats.kstest(values, stats.uniform(-1, 2).cdf).pvalue > 1e-4, name
        table = np.stack([*draws.values(), AffineAugment(seed=7).draw(np.arange(4000), 4)["x"], np.arange(4000)])
        off_diagonal = np.corrcoef(table) - np.eye(len(table))
        assert np.abs(off_diagonal).max() < 0.08  # 5 standard errors

    def test_draws_follow_splitmix64(self):
        def step(state: int) -> int:  # Python's own integers
            state = (state + 0x9E3779B97F4A7C15) % 2**64
            state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
            return state ^ (state >> 31)

        assert step(0) == 0xE220A8397B1DCDAF  # the published first output of seed 0
        state = step((step((step(11) + 2) % 2**64) + 9) % 2**64)
        expected = [(step((state + i * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**52 - 1 for i in range(9)]
        assert [value.item() for value in AffineAugment(seed=11).draw(np.array([9]), 2).values()] == expected


class TestGeometry:
    @pytest.mark.parametrize("name", MOVING)
    def test_each_magnitude_alone_moves_pixels_where_scipy_says(self, name):
        check_against_scipy({name: MOVING[name]})

    def test_all_magnitudes_together_move_pixels_where_scipy_says(self):
        check_against_scipy(MOVING)

    def test_a_positive_angle_turns_clockwise_on_the_screen_and_rigidly_on_any_aspect(self):
        augment = AffineAugment(rotation=90)
        draws = augment.draw(np.array([0]), 0)
        image = make_dot(41, 81, row=20, column=56)  # 16 pixels right of the centre
        x, y = find_centre(augment(image, keys(0), 0))
        angle = np.radians(90 * draws["rotation"].item())
        assert (x, y) == (pytest.approx(16 * np.cos(angle), abs=0.2), pytest.approx(16 * np.sin(angle), abs=0.2))

    def test_translation_moves_along_both_axes_by_fractions_of_the_size(self):
        augment = AffineAugment(translate=0.25)
        shifts = np.array([find_centre(augment(make_dot(41, 81, 20, 40), keys(key), 0)) for key in range(40)])
        assert np.abs(shifts[:, 0]).max() == pytest.approx(0.25 * 81, rel=0.15)
        assert np.abs(shifts[:, 1]).max() == pytest.approx(0.25 * 41, rel=0.15)
        assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.6

    def test_scale_stays_in_its_range_and_keeps_the_centre(self):
        augment = AffineAugment(scale=0.1)
        matrices = augment.matrices(augment.draw(np.arange(500), 0), 10, 30)
        zoom = matrices[:, 0, 0]
        assert (zoom.min(), zoom.max()) == (pytest.approx(0.9, abs=0.01), pytest.approx(1.1, abs=0.01))
        np.testing.assert_allclose(matrices[:, 1, 1], zoom)
        assert not matrices[:, :, 2].any()

    @pytest.mark.parametrize(("name", "dimension"), [("horizontal_flip", 3), ("vertical_flip", 2)])
    def test_a_certain_flip_is_a_flip(self, name, dimension):
        image = make_images(3)
        flipped = AffineAugment(**{name: 1.0})(image, torch.arange(3), 0)
        torch.testing.assert_close(flipped, image.flip(dimension), rtol=0, atol=1e-4)

    def test_a_flip_happens_with_its_probability(self):
        augment = AffineAugment(horizontal_flip=0.3)
        flipped = augment.matrices(augment.draw(np.arange(2000), 0), 8, 8)[:, 0, 0] < 0
        assert flipped.mean() == pytest.approx(0.3, abs=0.04)

    def test_a_grid_under_autocast_is_as_fine_as_without(self):
        augment, image = AffineAugment(rotation=20), make_images(2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under = augment(image, keys(0, 1), 0)
        torch.testing.assert_close(under, augment(image, keys(0, 1), 0))

    def test_the_grid_is_that_of_affine_grid(self):
        theta = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(0))
        expected = torch.nn.functional.affine_grid(theta, [3, 1, 5, 8], align_corners=False)
        torch.testing.assert_close(_make_grid(theta, 5, 8), expected)

    def test_what_comes_from_outside_is_black(self):
        moved = AffineAugment(translate=0.9)(torch.ones(8, 1, 20, 20), torch.arange(8), 0)
        assert all((image == 0).any() for image in moved)
        assert moved.max() <= 1 + 1e-6


def check_against_scipy(magnitudes: dict[str, float]) -> None:
    augment = AffineAugment(**magnitudes, seed=3)
    image = make_images(5)
    moved = augment(image, torch.arange(5), 1)
    matrices = augment.matrices(augment.draw(np.arange(5), 1), 24, 36)
    centre = np.array([23 / 2, 35 / 2])
    for before, after, matrix in zip(image, moved, matrices, strict=True):
        linear = np.linalg.inv(matrix[::-1, 1::-1])  # (x, y) -> (row, column)
        offset = centre - linear @ (centre + matrix[::-1, 2])
        expected = ndimage.affine_transform(before[0].numpy(), linear, offset, order=1, mode="grid-constant")
        np.testing.assert_allclose(after[0].numpy(), expected, atol=1e-4)
    assert not torch.allclose(moved, image, atol=0.01)


class TestExposure:
    def test_brightness_is_torchvisions(self):
        augment, image = AffineAugment(brightness=0.5), make_images(4)
        factors = 1 + 0.5 * augment.draw(np.arange(4), 0)["brightness"]
        expected = [reference.adjust_brightness(one, factor) for one, factor in zip(image, factors, strict=True)]
        torch.testing.assert_close(augment(image, torch.arange(4), 0), torch.stack(expected))

    def test_contrast_is_torchvisions(self):
        augment, image = AffineAugment(contrast=0.9), make_images(4)
        factors = 1 + 0.9 * augment.draw(np.arange(4), 0)["contrast"]
        expected = [reference.adjust_contrast(one, factor) for one, factor in zip(image, factors, strict=True)]
        torch.testing.assert_close(augment(image, torch.arange(4), 0), torch.stack(expected))


class TestMagnitudes:
    def test_all_zero_returns_the_input_untouched(self):
        image = make_images(2)
        assert AffineAugment()(image, keys(0, 1), 0) is image
        assert AffineAugment().is_identity

    @pytest.mark.parametrize("name", LIMITS)
    def test_any_magnitude_is_no_identity(self, name):
        assert not AffineAugment(**{name: 0.5}).is_identity

    @pytest.mark.parametrize("name", LIMITS)
    @pytest.mark.parametrize("value", [-0.1, 1000, float("nan"), "0.1", None, True])
    def test_impossible_magnitude_is_an_error(self, name, value):
        with pytest.raises(ConfigError, match=rf"expected augment\.{name} to be .* from 0 to .*, got"):
            AffineAugment(**{name: value})

    @pytest.mark.parametrize("seed", [0.5, True, "1"])
    def test_impossible_seed_is_an_error(self, seed):
        with pytest.raises(ConfigError, match=r"expected augment\.seed to be an integer, got"):
            AffineAugment(seed=seed)

    @pytest.mark.parametrize(
        ("name", "text"), [("horizontal_flip", "swaps the heart's side"), ("vertical_flip", "upside down")]
    )
    def test_flips_warn(self, name, text, caplog):
        with caplog.at_level(logging.WARNING):
            AffineAugment(**{name: 0.5})
        assert text in caplog.text

    def test_nothing_warns_without_flips(self, caplog):
        AffineAugment(rotation=10, translate=0.1)
        assert not caplog.records
