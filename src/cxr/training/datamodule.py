"""The one LightningDataModule: a cohort and its stored images -> finished, augmented batches on the device.

Knows nothing of datasets' layouts or of configs.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from cxr.data.augment_policy import Augment
from cxr.data.batch import BatchTransform
from cxr.data.dataset import Batch, EpochSampler, ImageDataset, keep_batch
from cxr.data.decoding import StoredArray
from cxr.data.image_store import ImageStore, StoredImages
from cxr.data.mixing import Mixing
from cxr.data.samples import label_array
from cxr.imaging.preprocess import Preprocess

SHARE_OF_FREE = 0.25


class ChestDataModule(pl.LightningDataModule):
    """Batches of ``image`` (B, C, H, W) float32 in the net's range, ``label`` and ``key`` (B,) int64.

    A label is a class index, (B,) int64, or targets, (B, K) float32, NaN where nothing is stated. Training batches that
    are mixed have `partner` and `share` as well, see `Mixing`.

    Args:
        samples: The samples table with `label` or targets, `split`, `image_path` and `content_hash`.
        images: Where the stored images come from.
        preprocess: Complete preprocessing; the same for every part.
        augment: What is done to training images.
        sampling: How an epoch draws training images, a mode of `cxr.data.sampling.epoch_order`.
        batch_size: Images per batch and device.
        num_workers: Loader processes; 0 is fastest where images come decoded from the cache.
        seed: The run's seed.
        mixing: What mixes the images of a training batch, or None.
        device_cache: Whether the training images lie in the memory of the device: True, False, or "auto": on a GPU
            where they take no more than a quarter of what is free.
    """

    def __init__(
        self,
        samples: pd.DataFrame,
        images: ImageStore,
        preprocess: Preprocess,
        augment: Augment,
        sampling: str,
        batch_size: int,
        num_workers: int,
        seed: int,
        mixing: Mixing | None = None,
        device_cache: bool | str = False,
    ) -> None:
        super().__init__()
        self.parts = {str(part): rows.reset_index(drop=True) for part, rows in samples.groupby("split")}
        self.images = images
        self.transform = BatchTransform(preprocess, augment)
        self.sampling = sampling
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.mixing = Mixing() if mixing is None else mixing
        self.device_cache = device_cache
        self.datasets: dict[str, ImageDataset] = {}
        self.resident: set[str] = set()

    def setup(self, stage: str) -> None:
        """Open the stored images of each part; those to train on where they will be used, if training is next."""
        for part in self.parts.keys() - self.datasets.keys():
            self.datasets[part] = ImageDataset(self._open(part), self._labels(part))
        if stage == "fit" and "train" not in self.resident and self._belongs_on_device(self.datasets["train"]):
            self.resident.add("train")
            self.datasets["train"].keep_on(self.trainer.strategy.root_device)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches in the order of the epoch; a last batch of a single image is left out (batch norm)."""
        own = EpochSampler(self._labels("train"), self.sampling, self.seed)
        own.set_epoch(self._next_epoch())
        sampler = self._share(own)
        single_left = len(sampler) % self.batch_size == 1 and len(sampler) > 1
        return self._loader("train", sampler=sampler, drop_last=single_left)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation batches in table order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test batches in table order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Training images in table order, each once, for what the net has learnt of them."""
        return self._loader("train")

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move images and labels; keys stay with the host, where the draws of augmentation are made."""
        moved = {name: values.to(device, non_blocking=True) for name, values in batch.items() if name != "key"}
        return {**moved, "key": batch["key"]}

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Finish preprocessing, and in training augment and mix, on the batch's device."""
        trainer = self.trainer
        training = bool(trainer is not None and trainer.training)
        epoch = trainer.current_epoch if trainer is not None else 0
        finished = {**batch, "image": self.transform(batch["image"], batch["key"], epoch, training)}
        return self.mixing(finished, epoch) if training else finished

    def stored_images(self, part: str, rows: NDArray[np.int64]) -> StoredArray:
        """(N, h, w) stored images of the (N,) positions `rows` in the table of `part`."""
        return self._open(part)[rows]

    def _share(self, sampler: EpochSampler) -> EpochSampler | DistributedSamplerWrapper:
        """What this device takes of an epoch: of n devices every n-th key, so that a step of all is one large batch.

        Lightning would draw the order once more, and before it knows which epoch a resumed run goes on with. The first
        keys are taken again where the epoch cannot be divided.
        """
        if self.trainer is None or self.trainer.world_size == 1:
            return sampler
        return DistributedSamplerWrapper(
            sampler, num_replicas=self.trainer.world_size, rank=self.trainer.global_rank, shuffle=False
        )

    def _next_epoch(self) -> int:
        """The epoch about to be trained: Lightning fetches a resumed run's first batch before it tells the sampler."""
        return 0 if self.trainer is None else int(self.trainer.fit_loop.epoch_progress.current.processed)

    def _belongs_on_device(self, dataset: ImageDataset) -> bool:
        if self.device_cache != "auto" or self.trainer is None:
            return self.trainer is not None and bool(self.device_cache)
        device = self.trainer.strategy.root_device
        return device.type == "cuda" and self.num_workers == 0 and fits_beside(dataset.stored_bytes, device)

    def _open(self, part: str) -> StoredImages:
        table = self.parts[part]
        return self.images.open(table["image_path"].tolist(), table["content_hash"].tolist())

    def _labels(self, part: str) -> NDArray[Any]:
        return label_array(self.parts[part])

    def _loader(self, part: str, **options: Any) -> DataLoader[Batch]:
        return DataLoader(
            self.datasets[part],
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=keep_batch,
            pin_memory=torch.cuda.is_available() and part not in self.resident,
            generator=torch.Generator(),  # of its own: an iterator draws from it, and dropout must not notice
            persistent_workers=self.num_workers > 0,
            **options,
        )


def fits_beside(needed: int, device: torch.device) -> bool:
    """Whether so many bytes leave a GPU most of its free memory, for the net and its activations."""
    free, _ = torch.cuda.mem_get_info(device)
    return needed <= SHARE_OF_FREE * free
