import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr.serving.rate import RateLimiter


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_full_bucket_is_emptied_and_fills_again():
    clock = Clock()
    limiter = RateLimiter(per_second=0.5, burst=3, clock=clock)
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 2]
    clock.now += 1
    assert limiter.take("a") == 1
    clock.now += 1
    assert [limiter.take("a"), limiter.take("a")] == [0, 2]
    assert limiter.take("b") == 0


def test_a_bucket_never_holds_more_than_a_burst():
    clock = Clock()
    limiter = RateLimiter(per_second=5, burst=2, clock=clock)
    limiter.take("a")
    clock.now += 1e6
    assert [limiter.take("a") > 0 for _ in range(3)] == [False, False, True]


@given(st.floats(0.01, 50), st.integers(1, 20), st.lists(st.floats(0, 100), max_size=10))
def test_who_waits_as_long_as_told_is_let_through(per_second, burst, pauses):
    clock = Clock()
    limiter = RateLimiter(per_second, burst, clock=clock)
    for pause in pauses:
        clock.now += pause
        limiter.take("a")
    while (wait := limiter.take("a")) == 0:
        pass
    clock.now += math.ceil(wait)
    assert limiter.take("a") == 0


@given(st.integers(1, 20), st.lists(st.floats(0, 2), min_size=20, max_size=40))
def test_no_more_pass_than_burst_and_rate(burst, pauses):
    clock = Clock()
    limiter, passed = RateLimiter(2, burst, clock=clock), 0
    for pause in pauses:
        clock.now += pause
        passed += limiter.take("a") == 0
    assert passed <= burst + 2 * sum(pauses) + 1e-3


def test_memory_is_bounded():
    limiter = RateLimiter(1, 1, most=100)
    for number in range(1000):
        limiter.take(str(number))
    assert list(limiter.buckets) == [str(number) for number in range(900, 1000)]


@pytest.mark.parametrize("wrong", [{"per_second": 0}, {"burst": 0}, {"most": 0}])
def test_a_limit_that_lets_nothing_through(wrong):
    with pytest.raises(ValueError, match="per_second > 0, burst >= 1 and most >= 1"):
        RateLimiter(**{"per_second": 1, "burst": 1, "most": 1, **wrong})
