import os
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr.data import apart
from cxr.data.apart import Readers, count_processes, in_batches
from cxr.errors import ImageError


def read_number(item: tuple[int, str]) -> int:
    """The number of an item, or what its word tells to do."""
    number, word = item
    if word == "die":
        os.abort()
    if word == "bad":
        raise ImageError("expected a number")
    return number


def collect(items, processes=1):
    with Readers(processes) as readers:
        return [pair for batch in readers.read(items, read_number) for pair in batch]


@given(st.lists(st.integers()), st.integers(1, 5))
def test_batches_hold_every_item_in_order_and_all_but_the_last_are_full(items, size):
    batches = list(in_batches(iter(items), size))
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == size for batch in batches[:-1])


def test_items_of_any_kind_are_told_as_text():
    ((item, outcome),) = collect([(1, "bad")], processes=0)
    assert item == (1, "bad")
    assert outcome.error == "(1, 'bad'): expected a number"


def test_no_more_than_two_batches_are_under_way(monkeypatch):
    monkeypatch.setattr(apart, "FILES_PER_WORKER_AND_BATCH", 2)
    taken = []
    items = ((taken.append(number) or number, "") for number in range(20))
    with Readers(1) as readers:
        for used, batch in enumerate(readers.read(items, read_number), start=1):
            assert [outcome.content for _, outcome in batch] == [2 * used - 2, 2 * used - 1]
            assert len(taken) <= 2 * (used + 1)


@pytest.mark.slow
def test_several_crashes_cost_their_own_files(monkeypatch):
    monkeypatch.setattr(apart, "FILES_PER_WORKER_AND_BATCH", 2)
    words = ["", "die", "", "die", ""]
    found = collect(list(enumerate(words)), processes=1)
    assert [item for item, _ in found] == list(enumerate(words))
    for (number, word), outcome in found:
        assert outcome.content == (None if word else number)
        assert ("was killed or crashed" in str(outcome.error)) == (word == "die")


def test_the_first_process_gets_ready_before_anything_is_read(tmp_path):
    with Readers(1, partial(Path.touch, tmp_path / "ready")) as readers:
        assert list(readers.read([], read_number)) == []
        assert (tmp_path / "ready").exists()


@pytest.mark.parametrize(("workers", "files", "processes"), [(8, 0, 0), (8, 1, 1), (8, 17, 2), (2, 1000, 2), (0, 9, 0)])
def test_few_files_need_few_processes(workers, files, processes):
    assert count_processes(workers, files) == processes
