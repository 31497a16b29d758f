import json

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cxr.scaling import Scaling, expit, scaling_to_json, softmax

LOGITS = arrays(np.float64, (3, 4), elements=st.floats(-1e4, 1e4))


@given(LOGITS)
def test_softmax_is_that_of_scipy(logits):
    np.testing.assert_allclose(softmax(logits), scipy.special.softmax(logits, axis=1), rtol=1e-12)


@given(LOGITS)
def test_expit_is_that_of_scipy(logits):
    np.testing.assert_allclose(expit(logits), scipy.special.expit(logits), rtol=1e-12, atol=1e-300)


def test_single_precision_gives_double():
    logits = np.array([[1, 2]], dtype=np.float32)
    assert softmax(logits).dtype == expit(logits).dtype == np.float64


def test_logits_are_divided_and_then_moved():
    scaling = Scaling(2.0, (0.5, -0.5))
    np.testing.assert_allclose(scaling.scale(np.array([[2.0, 4.0]])), [[1.5, 1.5]])
    np.testing.assert_allclose(scaling.to_probs(np.array([[2.0, 4.0]])), [[0.5, 0.5]])
    np.testing.assert_allclose(Scaling(2.0).scale(np.array([[2.0, 4.0]])), [[1.0, 2.0]])


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(1.5), Scaling(0.5, (1.0, -1.0))])
def test_a_scaling_survives_json(scaling):
    assert Scaling.from_dict(json.loads(json.dumps(scaling.to_dict()))) == scaling
    assert scaling_to_json(scaling) == scaling.to_dict()


def test_none_is_told_as_none():
    assert scaling_to_json(None) == {"temperature": None, "bias": None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0}, "temperature 0"),
        ({"temperature": "hot"}, "temperature 'hot'"),
        ({"temperature": 1.0, "bias": 3}, "bias 3"),
        ({"temperature": 1.0, "bias": ["a"]}, r"bias \['a'\]"),
    ],
)
def test_what_is_no_scaling_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Scaling.from_dict(values)
