"""A tiny learnable problem in memory: bright squares on the left or on the right, in noise."""

from functools import partial
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from cxr.data.augment import AffineAugment
from cxr.imaging.preprocess import Preprocess
from cxr.models.build import build_net
from cxr.models.transfer import make_tuning
from cxr.training.callbacks.checkpoint import AtomicCheckpointIO, make_best_checkpoint, make_last_checkpoint
from cxr.training.callbacks.history import History
from cxr.training.callbacks.stopping import ResumableEarlyStopping
from cxr.training.datamodule import ChestDataModule
from cxr.training.losses import make_cross_entropy
from cxr.training.module import ClassificationTask

SIZE = 32
ADAMW = partial(torch.optim.AdamW, lr=3e-3)


class ImagesInMemory:
    """An image store whose pictures follow from the content hash "<label>-<number>"."""

    def build(self, paths, hashes):
        return {}

    def open(self, paths, hashes):
        pictures = np.stack([self.picture(*map(int, text.split("-"))) for text in hashes])
        return Pictures(pictures)

    @staticmethod
    def picture(label, number):
        pixels = np.random.default_rng(number).integers(0, 160, (SIZE, SIZE))
        left = 4 if label == 0 else 20
        pixels[12:20, left : left + 8] += 70
        return pixels.astype(np.uint8)


class Pictures:
    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, rows):
        return self.pictures[rows]


def make_samples(train=48, val=24, test=24):
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    labels = [number % 2 for number in range(len(splits))]
    hashes = [f"{label}-{number}" for number, label in enumerate(labels)]
    return pd.DataFrame({"image_path": hashes, "content_hash": hashes, "label": labels, "split": splits})


@pytest.fixture
def make_run(tmp_path):
    """Build (task, datamodule, trainer) of a small run in tmp_path/<name>."""

    def make(name, *, epochs=4, scheduler=None, monitor="val/auroc", mode="max", patience=10, sampling="none",
             optimizer=ADAMW, callbacks=(), drop_rate=0.3, precision="32-true", tune=MappingProxyType({}),
             samples=None, **more):  # fmt: skip
        pl.seed_everything(7, verbose=False)
        preprocess = Preprocess(size=(SIZE, SIZE), normalizer="unit")
        net = build_net("custom_cnn", 2, filters_1=4, filters_2=8, filters_3=8, filters_4=8, dense_units=8,
                        drop_rate=drop_rate)  # fmt: skip
        loss = make_cross_entropy(torch.tensor([24, 24]), "none", 0.0)
        task = ClassificationTask(net, ["left", "right"], loss, optimizer, scheduler, monitor, seed=7,
                                  channels_last=True, tuning=make_tuning(net, **tune))  # fmt: skip
        augment = AffineAugment(rotation=5.0, translate=0.05, seed=7)
        data = ChestDataModule(
            make_samples() if samples is None else samples, ImagesInMemory(), preprocess, augment, sampling, 8, 0, 7
        )
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, num_sanity_val_steps=0,
            enable_model_summary=False, plugins=[AtomicCheckpointIO()], default_root_dir=folder, precision=precision,
            callbacks=[
                *callbacks,
                ResumableEarlyStopping(monitor, mode, patience),
                make_best_checkpoint(str(folder), monitor, mode, save_top_k=2),
                make_last_checkpoint(str(folder)),
                History(str(folder / "history.csv")),
            ],
            **more,
        )  # fmt: skip
        return task, data, trainer

    return make
