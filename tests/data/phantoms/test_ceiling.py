"""The bound on the AUROC against simulated observers."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cxr.data.phantoms.ceiling import (
    GRID,
    best_achievable_auroc,
    detectability,
    draw_texture,
    texture_amplitude,
)

d_primes = st.lists(st.floats(0, 30), min_size=1, max_size=12)


def make_truth(positive, negative, gives_class_away=False):
    d_prime = [*positive, *negative]
    truth = pd.DataFrame({"d_prime": d_prime, "gives_class_away": gives_class_away})
    return truth, pd.Series([True] * len(positive) + [False] * len(negative))


def blob(x, y, radius):
    rows, columns = np.mgrid[:GRID, :GRID]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2)).astype(np.float32)


@pytest.mark.parametrize("undrawn", [0, 10, 50])
def test_plain_findings_leave_half_of_the_undrawn_share(undrawn):
    truth, positive = make_truth([40.0] * (100 - undrawn) + [0.0] * undrawn, [0.0] * 30)

    assert best_achievable_auroc(truth, positive) == pytest.approx(1 - undrawn / 200)


def test_equals_the_auroc_of_an_ideal_observer_of_one_signal(rng):
    scores = np.concatenate([rng.normal(1.3, 1, 40_000), rng.normal(0, 1, 40_000)])
    reached = roc_auc_score([1] * 40_000 + [0] * 40_000, scores)

    assert best_achievable_auroc(*make_truth([1.3], [0.0])) == pytest.approx(reached, abs=0.005)


def test_bounds_an_observer_who_does_not_know_the_strength(rng):
    d_prime = np.repeat(rng.uniform(0, 3, 200), 50)
    scores = np.concatenate([rng.normal(d_prime), rng.normal(0, 1, 5000)])
    reached = roc_auc_score([1] * len(d_prime) + [0] * 5000, scores)

    assert reached < best_achievable_auroc(*make_truth(d_prime, [0.0]))


@given(d_primes, d_primes)
@settings(max_examples=40)
def test_lies_between_chance_and_one_and_does_not_ask_which_class_is_positive(positive, negative):
    truth, is_positive = make_truth(positive, negative)
    bound = best_achievable_auroc(truth, is_positive)

    assert 0.5 <= bound <= 1
    assert best_achievable_auroc(truth, ~is_positive) == pytest.approx(bound)
    assert best_achievable_auroc(truth[::-1], is_positive[::-1]) == pytest.approx(bound)


@given(d_primes, st.floats(0.01, 5))
@settings(max_examples=40)
def test_a_plainer_finding_never_lowers_it(positive, more):
    plainer = [positive[0] + more, *positive[1:]]

    assert best_achievable_auroc(*make_truth(plainer, [0.0])) >= best_achievable_auroc(*make_truth(positive, [0.0]))


def test_a_marker_that_gives_the_class_away_lifts_it_to_one():
    assert best_achievable_auroc(*make_truth([0.0, 1.0], [0.0], gives_class_away=True)) == 1.0


def test_is_nan_without_a_negative():
    assert math.isnan(best_achievable_auroc(*make_truth([1.0, 2.0], [])))


def test_texture_has_unit_variance_and_the_stated_spectrum(rng):
    drawn = np.stack([draw_texture(40.0, rng) for _ in range(60)])
    power = (np.abs(np.fft.rfft2(drawn)) ** 2).mean(axis=0) / GRID**2

    assert (drawn**2).mean() == pytest.approx(1.0, rel=0.15)
    np.testing.assert_allclose(power[3:40, 3:40].mean(), (texture_amplitude(40.0)[3:40, 3:40] ** 2).mean(), rtol=0.05)


def test_detectability_in_white_noise_is_energy_over_noise():
    signal = 0.3 * blob(90, 80, 6)

    assert detectability(signal, 40.0, 0.0, 0.05) == pytest.approx(np.linalg.norm(signal) / 0.05, rel=1e-4)


def test_detectability_is_what_a_matched_filter_reaches_on_drawn_textures(rng):
    signal, texture, noise = 0.02 * blob(100, 70, 9), 0.05, 0.03
    power = (texture * texture_amplitude(40.0)) ** 2 + noise**2
    template = np.fft.irfft2(np.fft.rfft2(signal) / power, (GRID, GRID))
    backgrounds = [texture * draw_texture(40.0, rng) + noise * rng.standard_normal((GRID, GRID)) for _ in range(150)]
    scores = [float((background * template).sum()) for background in backgrounds]
    reached = float((signal * template).sum()) / np.std(scores)

    assert detectability(signal, 40.0, texture, noise) == pytest.approx(reached, rel=0.2)


@given(st.floats(0.1, 10))
@settings(max_examples=20)
def test_detectability_grows_in_proportion_to_contrast(factor):
    signal = 0.01 * blob(60, 60, 8)
    once = detectability(signal, 40.0, 0.04, 0.01)

    assert detectability(np.float32(factor) * signal, 40.0, 0.04, 0.01) == pytest.approx(factor * once, rel=1e-4)
