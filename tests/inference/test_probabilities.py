import numpy as np
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cxr.inference.probabilities import expit, softmax

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
