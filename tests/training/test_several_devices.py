"""Two processes on the CPU: which images each of them gets, and that they keep one moving average."""

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from cxr.data.sampling import epoch_order
from cxr.errors import TrainingError
from cxr.training.callbacks.averaging import MovingAverage
from cxr.training.callbacks.same_start import SameStart

from .averages import assert_same, average_by_hand

TWO = {"devices": 2, "strategy": "ddp_fork"}


class Witness(pl.Callback):
    """Writes down, for each process, the keys it trained on, its weights after every update and the validated ones."""

    def __init__(self, folder, stop_in=None):
        self.folder, self.stop_in = folder, stop_in
        self.keys, self.trained, self.validated = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.stop_in and batch_idx == 1:
            raise RuntimeError("killed")
        self.keys.append((trainer.current_epoch, batch["key"].tolist()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append(copy.deepcopy(pl_module.state_dict()))

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.validated.append(copy.deepcopy(pl_module.state_dict()))

    def on_train_end(self, trainer, pl_module):
        told = {"keys": self.keys, "trained": self.trained, "validated": self.validated}
        torch.save(told, self.folder / f"process{trainer.global_rank}.pt")


def read_told(folder):
    return [torch.load(folder / f"process{rank}.pt", weights_only=True) for rank in (0, 1)]


def uneven_samples():
    """Three samples of four have class 0; 45 train, which two devices cannot share."""
    splits = ["train"] * 45 + ["val"] * 24
    labels = [int(number % 4 == 0) for number in range(len(splits))]
    hashes = [f"{label}-{number}" for number, label in enumerate(labels)]
    return pd.DataFrame({"image_path": hashes, "content_hash": hashes, "label": labels, "split": splits})


@pytest.mark.slow
def test_two_devices_keep_one_average_and_go_on_with_it(make_run, tmp_path):
    (tmp_path / "whole").mkdir()
    task, data, trainer = make_run(
        "whole", epochs=3, callbacks=[MovingAverage(0.9), Witness(tmp_path / "whole")], **TWO
    )
    trainer.fit(task, datamodule=data, weights_only=True)
    first, second = read_told(tmp_path / "whole")
    expected = average_by_hand(first["trained"], 0.9)
    last = torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=True)
    assert_same(last["state_dict"], expected)
    assert_same(last["current_model_state"], first["trained"][-1])
    for one, other in zip(first["validated"], second["validated"], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert_same(first["validated"][-1], expected)

    (tmp_path / "broken").mkdir()
    task, data, trainer = make_run(
        "broken", epochs=3, callbacks=[MovingAverage(0.9), Witness(tmp_path / "broken", stop_in=2)], **TWO
    )
    with pytest.raises(Exception, match="killed"):
        trainer.fit(task, datamodule=data, weights_only=True)
    task, data, trainer = make_run(
        "broken", epochs=3, callbacks=[MovingAverage(0.9), Witness(tmp_path / "broken")], **TWO
    )
    path = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    trainer.fit(task, datamodule=data, ckpt_path=path, weights_only=True)
    resumed = torch.load(path, weights_only=True)
    for kind in ("state_dict", "current_model_state", "averaging_state"):
        assert all(torch.equal(last[kind][name], resumed[kind][name]) for name in last[kind]), kind
    for whole, rest in zip((first, second), read_told(tmp_path / "broken"), strict=True):
        assert [keys for epoch, keys in whole["keys"] if epoch == 2] == [keys for _, keys in rest["keys"]]


@pytest.mark.parametrize("mode", ["none", "downsample", "oversample", "weighted"])
@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_the_devices_are_the_epoch(make_run, mode, world):
    samples = uneven_samples()
    labels = samples.loc[samples["split"] == "train", "label"].to_numpy()
    shares = []
    for rank in range(world):
        _, data, _ = make_run("run", sampling=mode, samples=samples)
        progress = SimpleNamespace(current=SimpleNamespace(processed=5))
        data.trainer = SimpleNamespace(
            world_size=world, global_rank=rank, fit_loop=SimpleNamespace(epoch_progress=progress)
        )
        data.setup("fit")
        shares.append(list(data.train_dataloader().sampler))
    order = epoch_order(labels, mode, seed=7, epoch=5)
    together = np.array(shares).T.ravel()  # as one device would take them, with the first ones again at the end
    np.testing.assert_array_equal(together, np.concatenate([order, order[: -len(order) % world]]))
    if mode in ("downsample", "oversample"):
        counts = np.bincount(labels[together[: len(order)] % len(labels)])
        assert counts[0] == counts[1]


def test_no_device_is_left_with_a_single_image_to_normalise(make_run):
    _, data, _ = make_run("run", samples=uneven_samples().iloc[[*range(34), *range(45, 69)]])
    progress = SimpleNamespace(current=SimpleNamespace(processed=0))
    data.trainer = SimpleNamespace(world_size=2, global_rank=0, fit_loop=SimpleNamespace(epoch_progress=progress))
    data.setup("fit")
    sizes = [len(batch["key"]) for batch in data.train_dataloader()]
    assert sizes == [8, 8]  # of 17


class OtherStart(SameStart):
    """Each process has its own number of images."""

    def setup(self, trainer, pl_module, stage):
        self.start = {"images": f"set {trainer.global_rank}", "folder": "run"}
        super().setup(trainer, pl_module, stage)


def test_processes_that_start_from_other_images_are_told(make_run):
    task, data, trainer = make_run("run", callbacks=[OtherStart({})], **TWO)
    with pytest.raises(Exception, match="expected all processes of a run to start from the same images") as error:
        trainer.fit(task, datamodule=data)
    assert "TrainingError" in repr(error.value) or isinstance(error.value, TrainingError)


def test_one_process_agrees_with_itself(make_run):
    task, data, trainer = make_run("run", epochs=1, callbacks=[SameStart({"images": "a"})])
    trainer.fit(task, datamodule=data)
    assert trainer.current_epoch == 1
