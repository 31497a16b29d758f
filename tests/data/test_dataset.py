import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cxr.data.dataset import EpochSampler, ImageDataset, keep_batch
from cxr.errors import DataError


class ArrayImages:
    """Stored images in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.gathers = 0

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.gathers += 1
        return self.array[rows]


def make_images(count: int = 6, dtype: type = np.uint8) -> ArrayImages:
    values = np.arange(count, dtype=dtype) + (65000 if dtype is np.uint16 else 0)
    return ArrayImages(np.broadcast_to(values[:, None, None], (count, 3, 4)))


LABELS = np.array([0, 0, 0, 0, 1, 1])


class TestImageDataset:
    def test_a_batch_holds_images_labels_and_keys(self):
        images = make_images()
        batch = ImageDataset(images, LABELS).__getitems__([4, 1, 10])  # 10 is the second draw of row 4
        assert batch["image"].dtype == torch.uint8
        assert batch["image"][:, 0, 0].tolist() == [4, 1, 4]
        assert batch["label"].tolist() == [1, 0, 1]
        assert batch["key"].tolist() == [4, 1, 10]
        assert images.gathers == 1

    def test_sixteen_bits_keep_their_values(self):
        batch = ImageDataset(make_images(dtype=np.uint16), LABELS).__getitems__([5, 0])
        assert batch["image"].dtype == torch.float32
        assert batch["image"][:, 0, 0].tolist() == [65005, 65000]

    def test_one_sample(self):
        sample = ImageDataset(make_images(), LABELS)[4]
        assert (sample["image"].shape, sample["label"].item(), sample["key"].item()) == ((3, 4), 1, 4)

    @pytest.mark.enable_socket  # a worker hands its tensors over by a local one
    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_loader_takes_whole_batches(self, workers):
        dataset = ImageDataset(make_images(), LABELS)
        loader = DataLoader(dataset, batch_size=4, collate_fn=keep_batch, num_workers=workers)
        batches = list(loader)
        assert [batch["image"].shape for batch in batches] == [(4, 3, 4), (2, 3, 4)]
        assert torch.cat([batch["key"] for batch in batches]).tolist() == list(range(6))

    def test_survives_pickling(self):
        dataset = pickle.loads(pickle.dumps(ImageDataset(make_images(), LABELS)))
        assert dataset.__getitems__([3])["image"][0, 0, 0] == 3

    def test_labels_must_fit_the_images(self):
        with pytest.raises(DataError, match="expected one label for each of 6 images, got 5 labels"):
            ImageDataset(make_images(), LABELS[:5])


class TestEpochSampler:
    @pytest.mark.parametrize("mode", ["none", "downsample", "oversample", "weighted"])
    def test_an_epoch_is_a_function_of_seed_and_epoch(self, mode):
        sampler, again = (EpochSampler(np.repeat(LABELS, 20), mode, seed=3) for _ in range(2))
        sampler.set_epoch(4)
        first = list(sampler)
        sampler.set_epoch(5)
        assert list(sampler) != first
        again.set_epoch(4)
        assert list(again) == first
        other = EpochSampler(np.repeat(LABELS, 20), mode, seed=4)
        other.set_epoch(4)
        assert list(other) != first

    @pytest.mark.parametrize(("mode", "length"), [("none", 6), ("downsample", 4), ("oversample", 8), ("weighted", 6)])
    def test_the_length_is_the_same_in_every_epoch(self, mode, length):
        sampler = EpochSampler(LABELS, mode, seed=0)
        for epoch in range(4):
            sampler.set_epoch(epoch)
            assert len(list(sampler)) == len(sampler) == length

    def test_repeated_draws_of_an_image_have_distinct_keys(self):
        drawn = list(EpochSampler(LABELS, "oversample", seed=0))
        assert len(set(drawn)) == len(drawn) == 8
        assert all(isinstance(key, int) for key in drawn)
        labels = ImageDataset(make_images(), LABELS).__getitems__(drawn)["label"]
        assert labels.bincount().tolist() == [4, 4]
