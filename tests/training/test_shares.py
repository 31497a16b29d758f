"""Where the time of training goes, and that a step does no more than it must."""

import json
from collections import Counter
from itertools import chain, repeat

import torch

from cxr.training.callbacks.shares import PARTS, Shares, TimeShares, tell_shares
from cxr.training.module import ClassificationTask


def test_each_second_counts_for_the_innermost_part():
    clock = chain([0.0, 1.0, 3.0, 6.0, 10.0, 15.0], repeat(15.0))
    shares = Shares(lambda: next(clock))
    update, forward = "[LightningModule]Task.optimizer_step", "[Strategy]SingleDeviceStrategy.training_step"
    with shares.profile(update), shares.profile(forward), shares.profile("nothing known"):
        pass
    assert shares.seconds == {"the loop around them": 1.0, "optimiser": 2.0, "forward": 3.0 + 4.0 + 5.0}


def test_the_answer_is_one_paragraph_of_shares():
    answer = tell_shares({"forward": 3.0, "backward": 1.0}, steps=8, batch_size=4)
    assert answer.startswith("8 steps of 4 images took 4.00 s, 8.0 images/s: data 0.0%, ")
    assert "forward 75.0%, backward 25.0%" in answer
    assert answer.endswith("Most of it is forward.")
    assert "\n" not in answer


def test_a_run_leaves_a_trace_and_an_answer(make_run, tmp_path):
    task, data, trainer = make_run("run", epochs=2, callbacks=[TimeShares(str(tmp_path), trace_steps=2)])
    trainer.fit(task, datamodule=data, weights_only=True)
    answer = (tmp_path / "profile.txt").read_text()
    assert answer.startswith("8 steps of 8 images took ")  # of 12
    for part in ("data", "forward", "backward", "optimiser", "logging", "metrics", "checkpoint", "validation"):
        assert part in PARTS
        assert f"{part} 0.0%" not in answer
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert "aten::conv2d" in names or "aten::convolution" in names
    assert not {"log", "log_step"} & set(vars(task))


def test_a_run_that_is_too_short_for_them_says_what_its_shares_hold(make_run, tmp_path):
    task, data, trainer = make_run("run", epochs=1, callbacks=[TimeShares(str(tmp_path), trace_steps=3)])
    trainer.fit(task, datamodule=data, weights_only=True)
    answer = (tmp_path / "profile.txt").read_text()
    assert answer.startswith("6 steps of 8 images took ")
    assert "also those that warm up and those in the trace: only from step 7 on are they left out" in answer


def test_of_several_devices_the_first_one_writes(make_run, tmp_path, monkeypatch):
    task, data, trainer = make_run("run", epochs=1, callbacks=[TimeShares(str(tmp_path), trace_steps=1)])
    monkeypatch.setattr(type(trainer), "is_global_zero", False)
    trainer.fit(task, datamodule=data, weights_only=True)
    assert not list(tmp_path.glob("*.txt")) + list(tmp_path.glob("*.json"))


ASKS = ("item", "cpu", "tolist", "__bool__", "__float__", "__int__")
"""Ways to ask a tensor for its value, each of which would wait for the device."""


def count_in_steps(run, monkeypatch, step):
    """What is called inside the training steps of a run."""
    task, data, trainer = run
    calls, inside = Counter(), [False]

    def counted(name, function):
        def call(self, *arguments, **keywords):
            calls[name] += inside[0]
            return function(self, *arguments, **keywords)

        return call

    def watched(self, batch, batch_idx):
        calls["step"] += 1
        inside[0] = True
        loss = step(self, batch, batch_idx)
        inside[0] = False
        return loss

    monkeypatch.setattr(ClassificationTask, "training_step", watched)
    monkeypatch.setattr(ClassificationTask, "log", counted("log", ClassificationTask.log))
    for name in ASKS:
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    trainer.fit(task, datamodule=data, weights_only=True)
    return +calls


def test_a_training_step_logs_twice_and_asks_no_tensor_for_its_value(make_run, monkeypatch):
    calls = count_in_steps(make_run("run", epochs=1), monkeypatch, ClassificationTask.training_step)
    assert calls == {"step": 6, "log": 12}


def test_a_step_that_asks_is_seen(make_run, monkeypatch):
    step = ClassificationTask.training_step

    def asking(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        assert loss.item() > 0
        return loss

    assert count_in_steps(make_run("run", epochs=1), monkeypatch, asking)["item"] == 6
