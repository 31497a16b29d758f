import numpy as np
import pytest
import torch

from cxr.data.augment import AffineAugment
from cxr.data.batch import BatchTransform
from cxr.imaging.preprocess import Preprocess

IMAGENET = {"channels": 3, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
XRV = {"low": -1024.0, "high": 1024.0}


def make_stored(preprocess: Preprocess, count: int = 4) -> np.ndarray:
    white = np.iinfo(preprocess.precision).max
    return np.random.default_rng(0).integers(0, white + 1, (count, *preprocess.size)).astype(preprocess.precision)


def to_tensor(stored: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(stored.astype(np.float32 if stored.dtype == np.uint16 else np.uint8))


@pytest.mark.parametrize("precision", ["uint8", "uint16"])
@pytest.mark.parametrize("contract", [{}, XRV, IMAGENET], ids=["unit", "xrv", "imagenet"])
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_finish_of_preprocess(precision, contract, training):
    preprocess = Preprocess(size=(20, 28), precision=precision, **contract)
    stored = make_stored(preprocess)
    finished = BatchTransform(preprocess, AffineAugment())(to_tensor(stored), torch.arange(4), 0, training)
    assert finished.dtype == torch.float32
    expected = preprocess.finish(stored)
    np.testing.assert_allclose(finished.numpy(), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_augments_in_training_only():
    preprocess = Preprocess(size=(20, 28))
    stored = to_tensor(make_stored(preprocess))
    transform = BatchTransform(preprocess, AffineAugment(rotation=30))
    plain = BatchTransform(preprocess)(stored, torch.arange(4), 0, training=True)
    assert torch.equal(transform(stored, torch.arange(4), 0, training=False), plain)
    assert not torch.allclose(transform(stored, torch.arange(4), 0, training=True), plain, atol=0.05)


@pytest.mark.parametrize("contract", [XRV, IMAGENET], ids=["xrv", "imagenet"])
@pytest.mark.parametrize("precision", ["uint8", "uint16"])
def test_the_fill_is_the_black_of_the_contract(contract, precision):
    preprocess = Preprocess(size=(20, 20), precision=precision, **contract)
    white = torch.full((8, 20, 20), int(np.iinfo(precision).max), dtype=torch.int32)
    transform = BatchTransform(preprocess, AffineAugment(translate=0.9, brightness=0.2))
    moved = transform(white, torch.arange(8), 0, training=True)
    lowest = moved.amin(dim=(2, 3)).numpy()
    np.testing.assert_allclose(lowest, np.tile(preprocess.black, (8, 1)), rtol=1e-6)
    if contract is XRV:
        assert lowest.max() == -1024


def test_an_augmented_image_is_its_grey_image_in_every_channel():
    grey, colour = Preprocess(size=(20, 20)), Preprocess(size=(20, 20), **IMAGENET)
    stored, augment = to_tensor(make_stored(grey)), AffineAugment(rotation=20, contrast=0.2)
    one = BatchTransform(grey, augment)(stored, torch.arange(4), 3, training=True)
    three = BatchTransform(colour, augment)(stored, torch.arange(4), 3, training=True)
    mean, std = (torch.tensor(IMAGENET[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(three, (one - mean) / std, rtol=1e-4, atol=1e-5)
