"""Mixed training images: the loss is that of both labels by their shares, whatever the loss."""

from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional

from cxr.data.mixing import Mixing
from cxr.training.fit import fit
from cxr.training.losses import make_cross_entropy, make_focal, make_masked_bce
from cxr.training.module import ClassificationTask

COUNTS = torch.tensor([30, 10, 20])


def loss_of(loss, logits, batch):
    task = ClassificationTask(torch.nn.Identity(), list("abc"), loss, None, None, "val/auroc", 0, channels_last=False)
    return task._loss_of(logits, batch)


@pytest.fixture
def batch():
    label = torch.tensor([0, 1, 2, 2, 0, 1, 0, 0])
    return {"label": label, "partner": label.roll(1), "share": torch.tensor(0.7)}


@pytest.fixture
def logits():
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.mark.parametrize(("weights", "smoothing"), [("none", 0.0), ("balanced", 0.0), ("none", 0.1)])
def test_cross_entropy_of_a_mixture_is_that_of_torchs_soft_labels(batch, logits, weights, smoothing):
    soft = 0.7 * functional.one_hot(batch["label"], 3) + 0.3 * functional.one_hot(batch["partner"], 3)
    weight = 60 / (3 * COUNTS) if weights == "balanced" else torch.ones(3)
    expected = functional.cross_entropy(logits, soft, weight=weight, label_smoothing=smoothing)
    expected = expected * 8 / weight[batch["label"]].sum()  # torch divides soft labels by their number alone
    torch.testing.assert_close(loss_of(make_cross_entropy(COUNTS, weights, smoothing), logits, batch), expected)


def test_focal_loss_of_a_mixture(batch, logits):
    log_p = logits.log_softmax(dim=1)
    each = -((1 - log_p.exp()) ** 2) * log_p
    soft = 0.7 * functional.one_hot(batch["label"], 3) + 0.3 * functional.one_hot(batch["partner"], 3)
    expected = (soft * each).sum(dim=1).mean()
    torch.testing.assert_close(loss_of(make_focal(COUNTS, "none", 2.0), logits, batch), expected)


def test_unstated_targets_of_either_image_teach_nothing(logits):
    label = torch.tensor([[0.0, 1.0, torch.nan]] * 4 + [[1.0, torch.nan, 0.0]] * 4)
    batch = {"label": label, "partner": label.roll(1, dims=0), "share": torch.tensor(0.7)}
    loss = make_masked_bce(torch.tensor([[30, 10], [5, 20], [7, 7]]), "none")
    expected = 0.0
    for share, target in ((0.7, batch["label"]), (0.3, batch["partner"])):
        stated = ~target.isnan()
        expected = expected + share * functional.binary_cross_entropy_with_logits(logits[stated], target[stated])
    found = loss_of(loss, logits, batch)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert logits.grad.isfinite().all()
    neither = batch["label"].isnan() & batch["partner"].isnan()
    assert neither.any()
    assert (logits.grad[neither] == 0).all()


class Watch(pl.Callback):
    def __init__(self):
        self.train, self.val = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.train.append(batch)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.val.append(batch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_training_batches_are_mixed_and_the_net_still_learns(make_run, kind):
    watch = Watch()
    task, data, trainer = make_run("run", epochs=24, patience=24, drop_rate=0.0, callbacks=[watch])
    data.mixing = Mixing(**{kind: 0.2}, seed=7)
    trainer.fit(task, datamodule=data, weights_only=True)
    assert all("partner" in batch for batch in watch.train)
    assert not any("partner" in batch for batch in watch.val)
    assert trainer.callback_metrics["val/auroc"] > 0.9
    assert trainer.callback_metrics["train/accuracy"] > 0.8


def test_a_stopped_run_draws_the_same_mixtures(make_run, tmp_path):
    def states(name, **options):
        task, data, trainer = make_run(name, **options)
        data.mixing = Mixing(mixup=1.0, cutmix=1.0, seed=7)
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        path = last if last.exists() else None
        trainer.fit(task, datamodule=data, ckpt_path=path, weights_only=True)
        return torch.cat([value.flatten().float() for value in task.state_dict().values()])

    whole = states("whole", epochs=3)
    states("parts", epochs=1)
    assert torch.equal(states("parts", epochs=3), whole)


@pytest.mark.parametrize("words", [
    ["augment=strong", "augment.mixup=0.4", "augment.cutmix=1"],
    ["augment=strong", "augment.mixup=0.4", "loss=focal", "loss.class_weights=balanced", "data.scheme=4class"],
])  # fmt: skip
def test_recipes_with_mixing_train(compose_run, tmp_path, words):
    result = fit(compose_run(tmp_path / "run", *words, "trainer.max_epochs=1"))
    assert np.isfinite(result.metrics["val/auroc"])


def test_the_parts_of_a_mixture_are_weighed_as_they_lie():
    halves = partial(loss_of, make_cross_entropy(COUNTS, "none", 0.0), torch.eye(3))
    label = torch.tensor([0, 1, 2])
    same = halves({"label": label, "partner": label, "share": torch.tensor(0.6)})
    torch.testing.assert_close(same, functional.cross_entropy(torch.eye(3), label))
