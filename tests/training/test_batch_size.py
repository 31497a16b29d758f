"""The largest batch that fits, at updates of the same size."""

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from cxr.errors import ConfigError, TrainingError
from cxr.models.build import build_net
from cxr.training.assemble import assemble
from cxr.training.batch_size import find_largest, memory_advice, settle_batch_size, try_step
from cxr.training.fit import fit


def room_for(most, tried):
    def attempt(batch_size):
        tried.append(batch_size)
        if batch_size > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return attempt


@pytest.mark.parametrize(("most", "found"), [(100, 48), (47, 24), (11, 8), (1, 1)])
def test_it_is_the_largest_divisor_that_fits(most, found):
    tried = []
    assert find_largest(48, room_for(most, tried)) == found
    assert tried == [size for size in (48, 24, 16, 12, 8, 6, 4, 3, 2, 1) if size >= found]


def test_a_net_too_large_for_one_image_is_told():
    with pytest.raises(TrainingError, match="holds a training step of one image, but it ran out of memory; choose a"):
        find_largest(4, room_for(0, []))


def test_trying_leaves_net_and_random_numbers_as_they_are():
    net = build_net("custom_cnn", 2, filters_1=4, filters_2=4, filters_3=4, filters_4=4, dense_units=4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    drawn = torch.random.get_rng_state()
    try_step(net, (32, 32), torch.device("cpu"), False, 3)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_what_was_found_is_recorded_and_repeated(compose_run, tmp_path, monkeypatch):
    asked = ("data.batch_size=4", "trainer.accumulate_grad_batches=3", "trainer.max_epochs=1", "test=false")
    monkeypatch.setattr("cxr.training.batch_size.try_step", lambda *arguments: room_for(6, [])(arguments[-1]))
    run = tmp_path / "found"
    fit(compose_run(run, *asked, "data.largest_batch=true"))
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert (stored["data"]["batch_size"], stored["trainer"]["accumulate_grad_batches"]) == (6, 2)
    assert stored["data"]["largest_batch"] is False

    monkeypatch.setattr("cxr.training.batch_size.try_step", lambda *arguments: room_for(4, [])(arguments[-1]))
    again = compose_run(run, *asked, "data.largest_batch=true", f"ckpt_path={run}/checkpoints/last.ckpt")
    assert assemble(again).datamodule.batch_size == 6


def test_what_was_tried_is_given_back_before_anybody_looks_for_room(compose_run, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("cxr.training.batch_size.try_step", lambda *arguments: calls.append("tried"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("given back"))
    settle_batch_size(compose_run(tmp_path / "run", "data.largest_batch=true"), build_net("custom_cnn", 2))
    assert calls == ["tried", "given back"]


CACHED = "data.device_cache=false"
LARGEST = "data.largest_batch=true, which keeps the images of an update"
SMALLER = "a smaller data.batch_size without data.largest_batch"
RECOMPUTED = "grad_checkpointing=true for a net of timm"


@pytest.mark.parametrize(
    ("searched", "recomputes", "resident", "advice"),
    [
        (False, None, (), [LARGEST, RECOMPUTED]),
        (True, None, (), [SMALLER, RECOMPUTED]),
        (False, True, ("train",), [CACHED, LARGEST]),
    ],
    ids=["as it came", "the batch was looked for", "images on the device"],
)
def test_too_little_memory_of_a_gpu_names_what_can_still_be_set(searched, recomputes, resident, advice):
    asked = OmegaConf.create({"data": {"largest_batch": searched}})
    used = OmegaConf.create({"data": {"batch_size": 24}, "grad_checkpointing": recomputes})
    told = f"the GPU ran out of memory with data.batch_size=24; set {', or '.join(advice)}$"
    with pytest.raises(TrainingError, match=told), memory_advice(asked, used, set(resident)):
        raise torch.OutOfMemoryError


def test_several_devices_are_refused(compose_run, tmp_path):
    config = compose_run(tmp_path / "run", "data.largest_batch=true", "trainer.devices=2")
    with pytest.raises(ConfigError, match="expected trainer.devices=1 with data.largest_batch, got 2; find the batch"):
        settle_batch_size(config, build_net("custom_cnn", 2))
