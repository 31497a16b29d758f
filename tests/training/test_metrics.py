import socket

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from cxr.evaluation.metrics import classification_metrics
from cxr.training.metrics import HEADLINES, EpochOutputs, count_right, epoch_metrics, metric_names


def made_up(classes, n=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator) + 1.5 * torch.nn.functional.one_hot(target, classes)
    return logits, target


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_metrics_equal_those_of_evaluation(classes):
    names = [f"class {i}" for i in range(classes)]
    logits, target = made_up(classes)
    ours = epoch_metrics(logits, target, names)
    theirs = classification_metrics(target.numpy(), logits.softmax(1).numpy(), names)
    shared = [name for name in ours if name in theirs]
    assert set(HEADLINES) <= set(shared)
    for name in shared:
        assert float(ours[name]) == pytest.approx(theirs[name], abs=1e-5), name


def test_binary_headlines_are_those_of_the_positive_class():
    logits, target = made_up(2)
    ours = epoch_metrics(logits, target, ["negative", "positive"])
    positive = logits.softmax(1)[:, 1].numpy()
    preds = logits.argmax(1).numpy()
    truth = target.numpy()
    assert float(ours["auroc"]) == pytest.approx(sk.roc_auc_score(truth, positive), abs=1e-6)
    assert float(ours["average_precision"]) == pytest.approx(sk.average_precision_score(truth, positive), abs=1e-5)
    assert float(ours["sensitivity"]) == pytest.approx(sk.recall_score(truth, preds), abs=1e-6)
    assert float(ours["specificity"]) == pytest.approx(sk.recall_score(truth, preds, pos_label=0), abs=1e-6)


def test_names_are_those_returned():
    logits, target = made_up(3)
    names = ["a", "b", "c"]
    assert sorted(metric_names(names, multilabel=False)) == sorted(["loss", *epoch_metrics(logits, target, names)])


def test_several_targets_are_so_many_binary_questions_each_on_the_images_that_state_it():
    names, nan = ["opacity", "effusion", "never positive"], float("nan")
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 2, (60, 3), generator=torch.Generator().manual_seed(1)).float()
    target[::3, 0] = nan
    target[:, 2] = 0
    ours = epoch_metrics(logits, target, names)
    assert set(ours) < set(metric_names(names, multilabel=True))
    for number, name in enumerate(names[:2]):
        stated = ~target[:, number].isnan()
        truth, score = target[stated, number].numpy(), logits[stated, number].sigmoid().numpy()
        assert float(ours[f"auroc/{name}"]) == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-6)
        assert float(ours[f"sensitivity/{name}"]) == pytest.approx(sk.recall_score(truth, score > 0.5), abs=1e-6)
    mean = (ours["auroc/opacity"] + ours["auroc/effusion"]) / 2
    assert float(ours["auroc"]) == pytest.approx(float(mean))
    assert "auroc/never positive" not in ours


def test_right_answers_are_counted_among_what_is_stated():
    nan = float("nan")
    logits = torch.tensor([[2.0, -1.0], [-3.0, 1.0]])
    assert float(count_right(logits, torch.tensor([[1.0, nan], [1.0, 1.0]]))) == pytest.approx(2 / 3)
    assert float(count_right(logits, torch.tensor([0, 0]))) == 0.5


def test_outputs_are_sorted_by_key_and_each_sample_counts_once():
    outputs = EpochOutputs()
    outputs.update(torch.eye(3), torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1]))
    outputs.update(torch.ones(1, 3), torch.tensor([1]), torch.tensor([0]))
    logits, target, key = outputs.compute()
    assert key.tolist() == [0, 1, 2]
    assert target.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(logits, np.eye(3)[[1, 2, 0]])


def _two_processes(rank, port, folder):
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    outputs = EpochOutputs()
    outputs.update(torch.eye(3)[[rank]], torch.tensor([rank]), torch.tensor([rank]))
    outputs.update(torch.eye(3)[[2]], torch.tensor([2]), torch.tensor([2]))  # as a padded sampler repeats a sample
    torch.save(outputs.compute(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_outputs_of_two_processes_are_gathered_and_each_sample_counts_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(_two_processes, (port, tmp_path), nprocs=2, start_method="fork")
    for rank in (0, 1):
        logits, target, key = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert key.tolist() == target.tolist() == [0, 1, 2]
        assert torch.equal(logits, torch.eye(3))
