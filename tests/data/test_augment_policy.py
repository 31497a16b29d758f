from pathlib import Path

import pytest
import torch
import yaml

from cxr.data.augment import AffineAugment
from cxr.data.augment_policy import make_augment
from cxr.data.look import LookAugment
from cxr.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs" / "augment"
EVERY_KEY = yaml.safe_load((CONFIGS / "none.yaml").read_text())


def test_every_key_of_the_config_group_is_taken_and_zero_is_nothing():
    image, mixing = make_augment(EVERY_KEY, seed=3)
    assert image.is_identity
    assert (mixing.mixup, mixing.cutmix) == (0, 0)
    for key in EVERY_KEY:
        image, mixing = make_augment({**EVERY_KEY, key: 0.5}, seed=3)
        assert not image.is_identity or mixing.mixup + mixing.cutmix == 0.5
        assert image.affine.seed == image.look.seed == mixing.seed == 3


def test_the_look_comes_after_geometry_and_exposure():
    values = {"rotation": 20.0, "brightness": 0.2, "gamma": 0.5, "erase": 0.2}
    images, keys = torch.rand(4, 1, 20, 20, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    whole, _ = make_augment(values, seed=1)
    moved = AffineAugment(rotation=20.0, brightness=0.2, seed=1)(images, keys, 2)
    torch.testing.assert_close(whole(images, keys, 2), LookAugment(gamma=0.5, erase=0.2, seed=1)(moved, keys, 2))


def test_the_strong_policy_flips_and_mixes_nothing():
    strong = yaml.safe_load((CONFIGS / "strong.yaml").read_text())
    assert not {"horizontal_flip", "vertical_flip", "mixup", "cutmix"} & strong.keys()
    assert {"brightness", "contrast", "scale", "blur", "noise", "gamma"} <= strong.keys()


@pytest.mark.parametrize("key", ["hue", "seed"])
def test_an_unknown_key_is_told_with_those_there_are(key):
    with pytest.raises(ConfigError, match=f"expected augment to have the keys rotation, .* cutmix, got {key}; remove"):
        make_augment({key: 0.1}, seed=0)
