import math

import pytest
import torch

from cxr.training.schedulers import make_cosine, make_cycles, make_inverse_time, make_one_cycle, make_plateau


@pytest.fixture
def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def rates(schedule, optimizer, steps):
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_cosine_follows_the_formula(optimizer):
    got = rates(make_cosine(optimizer, 10, warmup=0.0, final=0.1), optimizer, 11)
    expected = [0.1 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 10))) for step in range(11)]
    assert got == pytest.approx(expected)


def test_cosine_warms_up_to_the_peak(optimizer):
    got = rates(make_cosine(optimizer, 20, warmup=0.25, final=0.0), optimizer, 20)
    assert got[:6] == pytest.approx([0.1 * (step + 1) / 6 for step in range(6)])
    assert max(got) == pytest.approx(0.1)


def test_cycles_start_at_the_peak_and_end_near_nothing(optimizer):
    got = rates(make_cycles(optimizer, 20, cycles=4), optimizer, 20)
    cosine = [0.1 * 0.5 * (1 + math.cos(math.pi * step / 5)) for step in range(5)]
    assert got == pytest.approx(cosine * 4)


def test_inverse_time_decay_is_that_of_keras(optimizer):
    got = rates(make_inverse_time(optimizer, 5, decay=0.5), optimizer, 5)
    assert got == pytest.approx([0.1 / (1 + 0.5 * step) for step in range(5)])


def test_one_cycle_peaks_at_the_optimizers_rate(optimizer):
    got = rates(make_one_cycle(optimizer, 20, warmup=0.3), optimizer, 20)
    assert max(got) == pytest.approx(0.1)
    assert got.index(max(got)) == 5
    assert got[-1] < got[0] < 0.1


def test_plateau_drops_after_patience_on_a_flat_metric(optimizer):
    schedule = make_plateau(optimizer, 100, mode="max", factor=0.1, patience=2)
    got = []
    for _ in range(5):
        schedule.step(0.5)
        got.append(optimizer.param_groups[0]["lr"])
    assert got == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01])
