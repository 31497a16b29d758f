import numpy as np
import pandas as pd

from cxr.evaluation.audit.metadata import code_levels, describe_columns


def kinds(column):
    """Which rows of a column look alike, numbered by first appearance."""
    features = describe_columns(pd.DataFrame({"a": column}), ["a"])
    return pd.factorize(pd.Series([row.tobytes() for row in features]))[0].tolist()


def test_a_missing_value_is_a_value_of_its_own():
    assert kinds(["M"] * 5 + ["F"] * 5 + [None] * 5) == [0] * 5 + [1] * 5 + [2] * 5
    assert kinds([1.0] * 5 + [2.0] * 5 + [np.nan] * 5) == [0] * 5 + [1] * 5 + [2] * 5


def test_rare_values_share_one():
    assert kinds(["a"] * 6 + ["b"] * 6 + ["c", "d", "e", "c"]) == [0] * 6 + [1] * 6 + [2] * 4


def test_many_numbers_become_eighths():
    found = kinds(np.random.default_rng(0).permutation(80))
    assert sorted(np.bincount(found)) == [10] * 8


def test_equal_numbers_stay_together_and_apart_from_others():
    found = kinds([1024] * 90 + list(range(2000, 2020)))
    assert set(found[:90]) == {0}
    assert 0 not in found[90:]


def test_numbers_as_text_count_as_numbers():
    assert kinds([str(number) for number in range(80)]) == kinds(range(80))


def test_rows_and_columns_bring_their_ratio():
    rng = np.random.default_rng(0)
    height = rng.integers(1000, 3000, 400).astype(float)
    portrait = rng.random(400) < 0.5
    samples = pd.DataFrame({"rows": height, "columns": height * np.where(portrait, 0.8, 1.25)})
    both = describe_columns(samples, ["rows", "columns"])
    apart = sum(describe_columns(samples, [name]).shape[1] for name in ("rows", "columns"))
    ratio = both[:, apart:]
    assert ratio.shape == (400, 2)
    np.testing.assert_array_equal(ratio[:, 0] == ratio[0, 0], portrait == portrait[0])


def test_levels_are_numbered_in_order():
    codes, levels = code_levels(pd.Series(["b", "a", None, "b"]))
    assert levels == ["a", "b", "missing"]
    assert codes.tolist() == [1, 0, 2, 1]
