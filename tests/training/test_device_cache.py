"""Training images in the memory of the device: the same batches, gathered there."""

import numpy as np
import pytest
import torch

from cxr.data.dataset import ImageDataset
from cxr.training import datamodule
from cxr.training.datamodule import fits_beside


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_resident_dataset_gives_the_same_batches(monkeypatch, kind):
    monkeypatch.setattr("cxr.data.dataset.ROWS_AT_ONCE", 3)
    images = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (10, 4, 5)).astype(kind)
    plain, resident = (ImageDataset(images, np.arange(10)) for _ in range(2))
    resident.keep_on(torch.device("cpu"))
    images = images.copy()
    for keys in ([3, 1, 14], [9], list(range(10))):
        expected, got = plain.__getitems__(keys), resident.__getitems__(keys)
        assert all(torch.equal(got[name], value) and got[name].dtype == value.dtype for name, value in expected.items())
    assert plain.stored_bytes == 10 * 4 * 5 * (1 if kind == np.uint8 else 4)


def test_it_reads_the_store_no_more(make_run):
    images = np.zeros((4, 2, 2), np.uint8)
    dataset = ImageDataset(images, np.arange(4))
    dataset.keep_on(torch.device("cpu"))
    images[:] = 7
    assert dataset.__getitems__([0, 1])["image"].max() == 0


def test_a_run_ends_with_the_same_weights(make_run):
    states = []
    for name, cache in (("a", False), ("b", True)):
        task, data, trainer = make_run(name, epochs=2)
        data.device_cache = cache
        trainer.fit(task, datamodule=data, weights_only=True)
        assert data.resident == ({"train"} if cache else set())
        states.append(task.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_images_stay_where_they_are_unless_training_is_next(make_run):
    task, data, trainer = make_run("run", epochs=1)
    data.device_cache = True
    trainer.test(task, datamodule=data)
    assert data.resident == set()
    trainer.fit(task, datamodule=data, weights_only=True)
    assert data.resident == {"train"}


@pytest.mark.parametrize(("needed", "fits"), [(25, True), (26, False)])
def test_a_quarter_of_the_free_memory_is_enough(monkeypatch, needed, fits):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    assert fits_beside(needed, torch.device("cuda")) is fits


@pytest.mark.parametrize(("workers", "kept"), [(0, True), (2, False)])
def test_auto_keeps_images_on_a_gpu_alone(make_run, monkeypatch, workers, kept):
    _, data, trainer = make_run("run")
    data.device_cache, data.trainer, data.num_workers = "auto", trainer, workers
    monkeypatch.setattr(datamodule, "fits_beside", lambda needed, device: True)
    dataset = ImageDataset(np.zeros((4, 2, 2), np.uint8), np.arange(4))
    assert not data._belongs_on_device(dataset)
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("cuda"))
    assert data._belongs_on_device(dataset) is kept
