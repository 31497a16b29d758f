import os
import shutil
import time

import pytest
from filelock import FileLock

from cxr.data import cache_room
from cxr.data.cache_room import MARK, SECONDS_IN_USE, make_room, mark_used
from cxr.errors import DataError

SIZE = 1000


@pytest.fixture
def caches(tmp_path):
    """make(name, days): a cache of SIZE bytes not used for so many days."""

    def make(name, days):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        (folder / "images.bin").write_bytes(bytes(SIZE))
        (folder / MARK).touch()
        then = time.time() - days * SECONDS_IN_USE
        os.utime(folder / MARK, (then, then))
        return folder

    return make


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_deleted_while_there_is_room(caches):
    own = caches("own", 0)
    caches("old", 9)
    make_room(own, needed=SIZE, max_bytes=3 * SIZE)
    assert left(own.parent) == ["old", "own"]


def test_the_longest_unused_gives_way_first(caches):
    own = caches("own", 30)
    for name, days in (("a", 2), ("b", 9), ("c", 5)):
        caches(name, days)
    make_room(own, needed=SIZE, max_bytes=4 * SIZE)
    assert left(own.parent) == ["a", "c", "own"]


def test_what_a_killed_process_left_half_deleted_goes(caches):
    own = caches("own", 0)
    (own.parent / ".half.deleted").mkdir()
    make_room(own, needed=SIZE, max_bytes=3 * SIZE)
    assert left(own.parent) == ["own"]


def test_what_was_used_today_stays(caches):
    own, used = caches("own", 0), caches("used", 9)
    mark_used(used)
    with pytest.raises(
        DataError, match=r"may hold 2.0 kB, but 1.0 kB more would make 3.0 kB; raise data.cache_max_gb,"
    ):
        make_room(own, needed=SIZE, max_bytes=2 * SIZE)
    assert left(own.parent) == ["own", "used"]


def test_a_cache_that_is_being_built_stays(caches):
    own, busy = caches("own", 0), caches("busy", 9)
    with FileLock(busy / "build.lock"), pytest.raises(DataError, match="raise data.cache_max_gb"):
        make_room(own, needed=SIZE, max_bytes=2 * SIZE)
    assert left(own.parent) == ["busy", "own"]


def test_marking_what_is_not_there_makes_nothing(tmp_path):
    mark_used(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_files_that_another_process_deletes_meanwhile_count_as_nothing(tmp_path, monkeypatch):
    own, other = tmp_path / "own", tmp_path / "other"
    for cache in (own, other):
        cache.mkdir()
        (cache / MARK).write_text("{}")
        (cache / "images.bin").write_bytes(bytes(1000))
    walk = cache_room.os.walk

    def list_then_delete(folder):
        found = list(walk(folder))
        shutil.rmtree(other)
        yield from found

    monkeypatch.setattr(cache_room.os, "walk", list_then_delete)
    make_room(own, 10, 1500)
    assert left(tmp_path) == ["own"]
