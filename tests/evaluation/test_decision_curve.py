import numpy as np
import pytest

from cxr.errors import DataError
from cxr.evaluation.decision_curve import THRESHOLDS, decision_curve, net_benefit


def make_case(n=200):
    rng = np.random.default_rng(0)
    prob = np.round(rng.random(n), 2)
    return rng.random(n) < prob, prob


def test_a_published_worked_example():
    # The tutorial at decisioncurveanalysis.org: 750 patients, 105 with cancer; a family history in 24 of these and in
    # 91 of the others. Its R package dcurves gives these values for "family history" and "treat all".
    positive = np.repeat([1, 1, 0, 0], [24, 81, 91, 554])
    history = np.repeat([1.0, 0.0, 1.0, 0.0], [24, 81, 91, 554])
    curve = decision_curve(positive, history, [0.01, 0.1, 0.2, 0.3])
    assert curve["model"].tolist() == pytest.approx([0.0307744108, 0.0185185185, 0.0016666667, -0.02])
    assert curve["treat_all"].tolist() == pytest.approx([0.1313131313, 0.0444444444, -0.075, -0.2285714286])
    assert curve["treat_none"].tolist() == [0, 0, 0, 0]


def test_net_benefit_against_the_formula_row_by_row():
    positive, prob = make_case()
    for threshold, found in zip(THRESHOLDS, net_benefit(positive, prob), strict=True):
        tp = sum(1 for yes, p in zip(positive, prob, strict=True) if p >= threshold and yes)
        fp = sum(1 for yes, p in zip(positive, prob, strict=True) if p >= threshold and not yes)
        assert found == pytest.approx(tp / 200 - fp / 200 * threshold / (1 - threshold))


def test_a_model_that_calls_all_positive_is_treating_all():
    positive, prob = make_case()
    curve = decision_curve(positive, np.ones(len(prob)))
    np.testing.assert_allclose(curve["model"], curve["treat_all"])


def test_no_model_is_better_than_knowing():
    positive, prob = make_case()
    known = net_benefit(positive, positive.astype(float))
    np.testing.assert_allclose(known, positive.mean())
    assert (net_benefit(positive, prob) <= known).all()


def test_at_zero_everyone_is_treated():
    positive, prob = make_case()
    assert net_benefit(positive, prob, [0.0]) == pytest.approx(positive.mean())


@pytest.mark.parametrize("thresholds", [[1.0], [-0.1, 0.5], 0.5, [float("nan")]])
def test_thresholds_that_are_no_risks_are_refused(thresholds):
    with pytest.raises(DataError, match=r"expected thresholds \(T,\) from 0 to under 1, got"):
        net_benefit([1, 0], [0.2, 0.4], thresholds)
