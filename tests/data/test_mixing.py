import numpy as np
import pytest
import torch
from scipy import stats

from cxr.data.mixing import Mixing
from cxr.errors import ConfigError


def make_batch(count=8, first=0):
    """Images that are their number everywhere, so that a mixture tells its shares."""
    numbers = torch.arange(count)
    image = numbers.float().reshape(-1, 1, 1, 1).expand(count, 1, 20, 30).clone()
    return {"image": image, "label": numbers, "key": numbers + first}


def shares_of_own(mixed):
    """Share of each image's own number, from the mean of the mixture."""
    own, other = torch.arange(8.0), torch.arange(8.0).roll(1)
    return (mixed["image"].mean(dim=(1, 2, 3)) - other) / (own - other)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_and_shares_are_those_of_the_pixels(kind):
    turned = 0
    for first in range(0, 200, 8):
        mixed = Mixing(**{kind: 1.0})(make_batch(first=first), epoch=0)
        own = shares_of_own(mixed)
        own_first = bool(own[0] >= 0.5)
        turned += not own_first
        order = (torch.arange(8), torch.arange(8).roll(1))
        larger, smaller = order if own_first else order[::-1]
        assert torch.equal(mixed["label"], larger)
        assert torch.equal(mixed["partner"], smaller)
        expected = mixed["share"].expand(8)
        torch.testing.assert_close(own if own_first else 1 - own, expected.float(), atol=1e-5, rtol=0)
        assert 0.5 <= mixed["share"] <= 1
    assert turned > 0


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_of_mixup_are_beta(alpha):
    shares = [float(Mixing(mixup=alpha)(make_batch(first=first), 0)["share"]) for first in range(600)]
    folded = stats.beta(alpha, alpha)
    assert stats.kstest(shares, lambda share: np.clip(2 * folded.cdf(share) - 1, 0, 1)).pvalue > 1e-4


def test_a_pasted_box_is_one_rectangle_at_one_place_of_all_images():
    mixed = Mixing(cutmix=1.0)(make_batch(), 0)["image"]
    own = torch.arange(8.0).reshape(-1, 1, 1, 1)
    pasted = (mixed != own)[:, 0]
    assert all(torch.equal(one, pasted[0]) for one in pasted)
    assert pasted[0].sum() == pasted[0].any(dim=0).sum() * pasted[0].any(dim=1).sum() > 0


def test_with_both_a_batch_takes_either():
    mixing = Mixing(mixup=1.0, cutmix=1.0)
    blended = [len(mixing(make_batch(first=first), 0)["image"][1].unique()) == 1 for first in range(300)]
    assert np.mean(blended) == pytest.approx(0.5, abs=0.15)


def test_the_draw_is_a_function_of_seed_epoch_and_first_key():
    def share(seed=0, epoch=0, first=0):
        return float(Mixing(mixup=1.0, seed=seed)(make_batch(first=first), epoch)["share"])

    torch.rand(3)
    np.random.default_rng().random()
    assert share() == share()
    assert len({share(), share(seed=1), share(seed=-1), share(epoch=1), share(first=1), share(first=2**40)}) == 6


def test_targets_are_mixed_as_pairs_and_what_is_not_stated_stays_so():
    batch = make_batch() | {"label": torch.tensor([[0.0, 1.0]] * 4 + [[1.0, torch.nan]] * 4)}
    mixed = Mixing(mixup=1.0)(batch, 0)
    assert mixed["partner"].shape == (8, 2)
    assert mixed["partner"].isnan().sum() == mixed["label"].isnan().sum() == 4


def test_nothing_asked_for_is_nothing_done():
    batch = make_batch()
    assert Mixing()(batch, 0) is batch


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("value", [-1, 11, "1", None, True])
def test_impossible_values_are_an_error(name, value):
    with pytest.raises(ConfigError, match=rf"expected augment\.{name} to be a number from 0 to 10, got"):
        Mixing(**{name: value})
