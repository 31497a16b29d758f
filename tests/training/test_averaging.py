"""The moving average of the weights: seen by validation, kept in checkpoints, continued by a resumed run."""

import copy
import logging

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from cxr.errors import ConfigError
from cxr.inference.bundle import load_net
from cxr.training.assemble import assemble
from cxr.training.callbacks.averaging import MovingAverage
from cxr.training.fit import fit

from .averages import assert_same, average_by_hand


class Recorder(pl.Callback):
    """Keeps the training weights after every update, and the weights that each validation sees."""

    def __init__(self):
        self.trained, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append(copy.deepcopy(pl_module.state_dict()))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.validated.append(copy.deepcopy(pl_module.state_dict()))


class StopAfter(pl.Callback):
    """Raises in the middle of an epoch, as a kill would."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 2:
            raise RuntimeError("killed")


def test_validation_and_checkpoints_have_the_average_of_all_updates_and_batch_norm_statistics(make_run, tmp_path):
    recorder = Recorder()
    task, data, trainer = make_run("run", epochs=3, callbacks=[MovingAverage(0.9), recorder])
    trainer.fit(task, datamodule=data, weights_only=True)
    expected = average_by_hand(recorder.trained, 0.9)
    assert any("running_var" in name for name in expected)
    assert len(recorder.trained) == 18
    assert_same(recorder.validated[0], average_by_hand(recorder.trained[:6], 0.9))
    assert_same(recorder.validated[-1], expected)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert_same(last["state_dict"], expected)
    assert_same(last["current_model_state"], recorder.trained[-1])
    assert_same(task.state_dict(), expected)
    counters = [name for name in expected if "num_batches_tracked" in name]
    assert [int(last["state_dict"][name]) for name in counters] == [18] * len(counters)


def test_the_best_checkpoint_is_evaluated_with_its_own_average(make_run):
    recorder = Recorder()
    task, data, trainer = make_run("run", epochs=4, callbacks=[MovingAverage(0.9), recorder], monitor="val/loss")
    trainer.fit(task, datamodule=data, weights_only=True)
    first = recorder.validated[0]
    checkpoint = {"state_dict": first} | _rest(trainer)
    path = trainer.default_root_dir + "/first.ckpt"
    torch.save(checkpoint, path)
    for ask in (trainer.validate, trainer.test):
        ask(task, datamodule=data, ckpt_path=path, weights_only=True, verbose=False)
        assert_same(task.state_dict(), first)
    assert_same(recorder.validated[-1], first)


def _rest(trainer):
    last = torch.load(f"{trainer.default_root_dir}/checkpoints/last.ckpt", weights_only=True)
    return {name: value for name, value in last.items() if name != "state_dict"}


def test_a_stopped_run_resumes_to_the_same_bits(make_run, tmp_path):
    task, data, trainer = make_run("whole", callbacks=[MovingAverage(0.95)])
    trainer.fit(task, datamodule=data, weights_only=True)
    broken, data, trainer = make_run("broken", callbacks=[MovingAverage(0.95), StopAfter(2)])
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit(broken, datamodule=data, weights_only=True)
    resumed, data, trainer = make_run("broken", callbacks=[MovingAverage(0.95)])
    last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    trainer.fit(resumed, datamodule=data, ckpt_path=last, weights_only=True)
    checkpoints = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "broken")
    ]
    for kind in ("state_dict", "current_model_state", "averaging_state"):
        one, other = (checkpoint[kind] for checkpoint in checkpoints)
        assert all(torch.equal(one[name], other[name]) for name in one), kind
    whole, continued = (
        pd.read_csv(tmp_path / name / "history.csv").drop(columns="seconds") for name in ("whole", "broken")
    )
    pd.testing.assert_frame_equal(whole, continued)


def test_several_batches_an_update_are_one_step_of_the_average(make_run):
    average = MovingAverage(0.9)
    task, data, trainer = make_run("run", epochs=1, callbacks=[average])
    trainer.accumulate_grad_batches = 3
    steps = []
    average.__dict__["_kwargs"]["multi_avg_fn"] = lambda averages, values, number: steps.append(int(number))
    trainer.fit(task, datamodule=data, weights_only=True)
    assert max(steps) == 1  # two updates: the first is copied


def test_the_bundle_has_the_averaged_weights(compose_run, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        result = fit(compose_run(tmp_path / "run", "ema=0.9", "trainer.max_epochs=2"))
    assert "WeightAveraging" not in caplog.text
    checkpoint = torch.load(result.best_checkpoint, weights_only=True)
    state = load_net(result.run_dir / "bundle").net.state_dict()
    for name, value in state.items():
        assert torch.equal(value, checkpoint["state_dict"][f"net.{name}"]), name
    assert any(not torch.equal(state[name], checkpoint["current_model_state"][f"net.{name}"]) for name in state)
    assert result.best_score == pytest.approx(result.metrics["val/auroc"], abs=1e-6)


@pytest.mark.parametrize("decay", ["0", "1", "1.5", "often", "true"])
def test_a_decay_that_is_none_is_refused(compose_run, tmp_path, decay):
    with pytest.raises(ConfigError, match="ema must be null or a number between 0 and 1, but got"):
        assemble(compose_run(tmp_path / "run", f"ema={decay}"))
