import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.evaluation.thresholds import candidate_thresholds

SCORES = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 0.5, 1.0, np.nextafter(1.0, 2.0)]), min_size=1)


def test_thresholds_lie_half_way():
    assert candidate_thresholds(np.array([0.4, 0.2, 0.4, 1.0])).tolist() == [0.2, 0.30000000000000004, 0.7, 1 + 2**-52]


@settings(deadline=None)
@given(SCORES)
def test_every_division_of_the_scores_is_there_once(scores):
    score = np.array(scores)
    kept = [frozenset(np.flatnonzero(score >= threshold)) for threshold in candidate_thresholds(score)]
    assert kept == [frozenset(np.flatnonzero(score >= value)) for value in np.unique(score)] + [frozenset()]
