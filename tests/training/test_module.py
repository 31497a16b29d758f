"""The training loop: it learns, it resumes to the same bits, it stops where it must."""

from functools import partial

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from cxr.errors import TrainingError
from cxr.training.schedulers import make_cosine, make_cycles, make_inverse_time, make_one_cycle, make_plateau

SCHEDULERS = {
    "none": None,
    "cosine": partial(make_cosine, warmup=0.1, final=0.0),
    "cycles": partial(make_cycles, cycles=2),
    "one cycle": partial(make_one_cycle, warmup=0.3),
    "inverse time": partial(make_inverse_time, decay=0.01),
    "plateau": partial(make_plateau, mode="max", factor=0.1, patience=0),
}


class StopAfter(pl.Callback):
    """Raises at the start of an epoch, as a kill would."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 2:
            raise RuntimeError("killed")


def weights(task):
    return torch.cat([value.flatten().float() for value in task.state_dict().values()])


def test_it_learns_and_keeps_its_best_checkpoints(make_run, tmp_path):
    task, data, trainer = make_run("run", epochs=12, drop_rate=0.0)
    trainer.fit(task, datamodule=data, weights_only=True)
    assert trainer.callback_metrics["val/auroc"] > 0.9
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names[-1] == "last.ckpt"
    assert len(names) == 3
    assert all(name.startswith("epoch0") and "-auroc" in name for name in names[:-1])


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_stopped_run_resumes_to_the_same_bits(make_run, tmp_path, scheduler):
    task, data, trainer = make_run("whole", scheduler=SCHEDULERS[scheduler])
    trainer.fit(task, datamodule=data, weights_only=True)

    broken, data, trainer = make_run("broken", scheduler=SCHEDULERS[scheduler], callbacks=[StopAfter(2)])
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit(broken, datamodule=data, weights_only=True)
    resumed, data, trainer = make_run("broken", scheduler=SCHEDULERS[scheduler])
    last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    trainer.fit(resumed, datamodule=data, ckpt_path=last, weights_only=True)

    assert torch.equal(weights(resumed), weights(task))
    whole, continued = (
        pd.read_csv(tmp_path / name / "history.csv").drop(columns="seconds") for name in ("whole", "broken")
    )
    pd.testing.assert_frame_equal(whole, continued)
    best = [trainer.checkpoint_callback.best_model_score, trainer.checkpoint_callback.best_model_path]
    assert best[1].startswith(str(tmp_path / "broken"))


TUNINGS = {
    "gradual unfreezing": {"unfreeze_every": 1},
    "all at once": {"freeze_upto": "block1", "unfreeze_every": 1, "layer_decay": 0.5},
}


@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("kill_in", [1, 2])
def test_a_stopped_run_whose_layers_join_in_resumes_to_the_same_bits(make_run, tmp_path, tuning, kill_in):
    options = {"scheduler": SCHEDULERS["cosine"], "epochs": 6, "tune": TUNINGS[tuning]}
    task, data, trainer = make_run("whole", **options)
    trainer.fit(task, datamodule=data, weights_only=True)

    broken, data, trainer = make_run("broken", callbacks=[StopAfter(kill_in)], **options)
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit(broken, datamodule=data, weights_only=True)
    resumed, data, trainer = make_run("broken", **options)
    trainer.fit(resumed, datamodule=data, ckpt_path=tmp_path / "broken" / "checkpoints" / "last.ckpt",
                weights_only=True)  # fmt: skip
    assert torch.equal(weights(resumed), weights(task))


class Watch(pl.Callback):
    """Keeps a copy of the weights and statistics, and which modules train, at the end of each training epoch."""

    def __init__(self):
        self.states, self.training = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.training.append({name for name, module in pl_module.net.named_modules() if module.training})

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append({name: value.clone() for name, value in pl_module.net.state_dict().items()})


def changed(before, after):
    """Stages of the small net in which anything moved: weights or batch-norm statistics."""
    return {name.split(".")[1 if name.startswith("backbone") else 0]
            for name in before if not torch.equal(before[name], after[name])}  # fmt: skip


def test_stages_join_in_from_the_head_down_and_the_others_stay_as_they_are(make_run):
    watch = Watch()
    task, data, trainer = make_run("run", epochs=6, callbacks=[watch], tune={"unfreeze_every": 2})
    start = {name: value.clone() for name, value in task.net.state_dict().items()}
    trainer.fit(task, datamodule=data, weights_only=True)
    states = [start, *watch.states]
    moved = [changed(states[epoch], states[epoch + 1]) for epoch in range(6)]
    assert moved == [{"head"}] * 2 + [{"head", "block4"}] * 2 + [{"head", "block4", "block3"}] * 2


def test_frozen_layers_keep_weights_and_statistics_and_stay_in_evaluation_mode_after_validation(make_run):
    watch = Watch()
    task, data, trainer = make_run("run", epochs=2, callbacks=[watch], tune={"freeze_upto": "block2"})
    start = {name: value.clone() for name, value in task.net.state_dict().items()}
    trainer.fit(task, datamodule=data, weights_only=True)
    assert changed(start, watch.states[-1]) == {"block3", "block4", "head"}
    for training in watch.training:
        assert not any(name.startswith(("backbone.block1", "backbone.block2")) for name in training)
        assert {"backbone", "backbone.dropout2", "backbone.block3.norm", "head.dropout"} <= training


def test_layers_far_from_the_head_learn_more_slowly(make_run):
    scheduler = SCHEDULERS["one cycle"]
    task, data, trainer = make_run("run", epochs=1, scheduler=scheduler, tune={"layer_decay": 0.5})
    trainer.fit(task, datamodule=data, weights_only=True)
    optimizer = task.optimizers().optimizer
    assert [group["lr_scale"] for group in optimizer.param_groups] == [1, 0.5, 0.25, 0.125, 0.0625]
    assert [group["max_lr"] for group in optimizer.param_groups] == pytest.approx(
        [3e-3, 1.5e-3, 7.5e-4, 3.75e-4, 1.875e-4]
    )
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}
    shapes = {parameter.shape for parameter in optimizer.param_groups[4]["params"]}
    assert torch.Size([4, 1, 3, 3]) in shapes


def test_without_tuning_the_optimiser_has_one_group_of_all_parameters(make_run):
    task, data, trainer = make_run("run", epochs=1)
    trainer.fit(task, datamodule=data, weights_only=True)
    (group,) = task.optimizers().optimizer.param_groups
    assert group["weight_decay"] == 0.01
    assert [id(one) for one in group["params"]] == [id(one) for one in task.net.parameters()]


def test_the_last_checkpoint_is_that_of_the_last_epoch_also_when_it_is_not_among_the_best(make_run, tmp_path):
    frozen = partial(torch.optim.SGD, lr=1e-12)
    task, data, trainer = make_run("run", epochs=5, optimizer=frozen)
    trainer.fit(task, datamodule=data, weights_only=True)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["epoch"] == 4
    assert trainer.checkpoint_callback.monitor == "val/auroc"


def test_early_stopping_ends_patience_epochs_after_the_best_and_stays_ended(make_run, tmp_path):
    frozen = partial(torch.optim.SGD, lr=1e-12)
    task, data, trainer = make_run("run", epochs=20, patience=2, optimizer=frozen)
    trainer.fit(task, datamodule=data, weights_only=True)
    best = int(trainer.checkpoint_callback.best_model_path.split("epoch")[-1][:3])
    assert trainer.current_epoch == best + 2 + 1

    again, data, trainer = make_run("run", epochs=20, patience=2, optimizer=frozen)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    trainer.fit(again, datamodule=data, ckpt_path=last, weights_only=True)
    assert torch.equal(weights(again), weights(task))


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_checkpoint_before(make_run, tmp_path):
    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch == 1:
                batch["image"].fill_(float("nan"))

    task, data, trainer = make_run("run", callbacks=[Poison()])
    with pytest.raises(TrainingError, match="train/loss is nan in epoch 1, expected a finite number; lower"):
        trainer.fit(task, datamodule=data, weights_only=True)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 0
    assert all(value.isfinite().all() for value in last["state_dict"].values())


def test_a_full_disk_is_told_and_leaves_the_checkpoint_before(make_run, tmp_path, monkeypatch):
    real_save = torch.save
    saved = []

    def save_until_full(checkpoint, file, *arguments, **keywords):
        saved.append(checkpoint["epoch"])
        if checkpoint["epoch"] == 1:
            raise OSError(28, "No space left on device")
        real_save(checkpoint, file, *arguments, **keywords)

    monkeypatch.setattr(torch, "save", save_until_full)
    task, data, trainer = make_run("run")
    with pytest.raises(TrainingError, match="No space left on device.*checkpoints saved before are intact"):
        trainer.fit(task, datamodule=data, weights_only=True)
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert not any("partial" in name for name in names)
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 0


def test_training_images_are_augmented_and_validation_images_are_not(make_run):
    seen = {"train": [], "val": []}

    class Spy(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen["train"].append({int(key): image for key, image in zip(batch["key"], batch["image"], strict=True)})

        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
            seen["val"].append({int(key): image for key, image in zip(batch["key"], batch["image"], strict=True)})

    task, data, trainer = make_run("run", epochs=2, callbacks=[Spy()])
    trainer.fit(task, datamodule=data, weights_only=True)
    first, second = ({k: v for batch in seen["train"][i : i + 6] for k, v in batch.items()} for i in (0, 6))
    assert first.keys() == second.keys() == set(range(48))
    assert list(first) != list(second)
    assert not any(torch.equal(first[key], second[key]) for key in first)
    first, second = ({k: v for batch in seen["val"][i : i + 3] for k, v in batch.items()} for i in (0, 3))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_each_sampling_mode_trains(make_run):
    for sampling in ("downsample", "oversample", "weighted"):
        task, data, trainer = make_run(sampling, epochs=1, sampling=sampling)
        trainer.fit(task, datamodule=data, weights_only=True)
        assert torch.isfinite(trainer.callback_metrics["train/loss"])


def test_bf16_teaches_and_float32_judges(make_run):
    task, data, trainer = make_run("run", epochs=1, precision="bf16-mixed")
    trainer.fit(task, datamodule=data, weights_only=True)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    logits, _, _ = task.outputs_of("val").compute()
    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16().float()).float().mean() > 0.9
