import errno
import hashlib
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from filelock import FileLock

from cxr.data import cache as cache_module
from cxr.data import cache_index, decoding
from cxr.data.cache import ImageCache
from cxr.data.cache_room import MARK, SECONDS_IN_USE
from cxr.data.image_store import UncachedImages
from cxr.errors import DataError, ImageError
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess

PREPROCESS = Preprocess(size=(12, 16))

# A build in another process, slowed down so that it can be interrupted: folder, images, workers, seconds per image.
BUILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_cache import hash_files, list_images, Slow
from cxr.data.cache import ImageCache

if __name__ == "__main__":
    paths = list_images(Path(sys.argv[3]))
    cache = ImageCache(Path(sys.argv[2]), Slow(size=(12, 16)), workers=int(sys.argv[4]))
    print(cache.build(paths, hash_files(paths)))
"""


class Slow(Preprocess):
    """Takes its time."""

    def store(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(0.01)
        return super().store(pixels)


def write_image(path: Path, seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)
    return str(path)


def write_images(folder: Path, count: int) -> list[str]:
    return [write_image(folder / f"{number:03d}.png", number) for number in range(count)]


def list_images(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.png"))


def hash_files(paths: list[str]) -> list[str]:
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]


def store_directly(paths: list[str], preprocess: Preprocess = PREPROCESS) -> np.ndarray:
    return np.stack([preprocess.store(read_pixels(path)) for path in paths])


def assert_holds(cache: ImageCache, paths: list[str]) -> None:
    images = cache.open(paths, hash_files(paths))
    np.testing.assert_array_equal(images[np.arange(len(paths))], store_directly(paths))


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return write_images(tmp_path / "images", 5)


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache", PREPROCESS, workers=0)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were decoded in this process."""
    calls: list[str] = []

    def count(path: str) -> np.ndarray:
        calls.append(path)
        return read_pixels(path)

    monkeypatch.setattr(decoding, "read_pixels", count)
    return calls


class TestStore:
    """What holds for both stores."""

    @pytest.fixture(params=["cached", "uncached"])
    def store(self, request, cache):
        return cache if request.param == "cached" else UncachedImages(PREPROCESS, workers=0)

    def test_images_come_in_the_order_asked_for(self, store, paths):
        hashes = hash_files(paths)
        assert store.build(paths, hashes) == {}
        images = store.open(paths[::-1], hashes[::-1])
        assert len(images) == 5
        np.testing.assert_array_equal(images[np.array([4, 0, 0])], store_directly([paths[0], paths[4], paths[4]]))

    def test_images_can_be_sent_to_another_process(self, store, paths):
        store.build(paths, hash_files(paths))
        images = store.open(paths, hash_files(paths))
        images[np.array([0])]
        sent = pickle.loads(pickle.dumps(images))
        np.testing.assert_array_equal(sent[np.array([3])], store_directly(paths[3:4]))

    def test_bad_files_are_reported_by_path(self, store, paths, tmp_path):
        constant, text, absent = (str(tmp_path / name) for name in ("constant.png", "text.png", "absent.png"))
        cv2.imwrite(constant, np.full((9, 9), 7, np.uint8))
        Path(text).write_text("no image")
        errors = store.build([*paths, constant, text, absent], [*hash_files([*paths, constant, text]), "no hash"])
        assert set(errors) == {constant, text, absent}
        assert "constant image" in errors[constant]
        assert all(path in error for path, error in errors.items())

    @pytest.mark.parametrize("precision", ["uint8", "uint16"])
    def test_prediction_from_a_file_equals_training_from_the_store(self, precision, paths, tmp_path):
        preprocess = Preprocess(size=(12, 16), precision=precision, low=-1024, high=1024)
        for store in (ImageCache(tmp_path / "cache", preprocess, workers=0), UncachedImages(preprocess, workers=0)):
            store.build(paths, hash_files(paths))
            stored = store.open(paths, hash_files(paths))[np.arange(5)]
            assert stored.dtype == precision
            expected = np.stack([preprocess(read_pixels(path)) for path in paths])
            np.testing.assert_array_equal(preprocess.finish(stored), expected)

    def test_a_batch_is_a_copy(self, store, paths):
        store.build(paths, hash_files(paths))
        images = store.open(paths, hash_files(paths))
        images[np.array([0])][:] = 0
        np.testing.assert_array_equal(images[np.array([0])], store_directly(paths[:1]))


class TestBuild:
    def test_a_second_build_decodes_nothing_and_writes_nothing(self, cache, paths, decoded, monkeypatch):
        bad = write_image(Path(paths[0]).parent / "bad.png", 1)
        Path(bad).write_bytes(b"bad")
        everything = [*paths, bad]
        errors = cache.build(everything, hash_files(everything))
        assert len(decoded) == 6
        monkeypatch.setattr(cache_module, "FileLock", None)  # not even the lock is taken
        assert (
            ImageCache(cache.folder.parent, PREPROCESS, workers=0).build(everything, hash_files(everything)) == errors
        )
        assert len(decoded) == 6

    def test_reading_decodes_nothing(self, cache, paths, decoded):
        cache.build(paths, hash_files(paths))
        cache.open(paths, hash_files(paths))[np.arange(5)]
        assert len(decoded) == 5

    def test_equal_content_is_stored_once(self, cache, paths, decoded):
        twin = shutil.copy(paths[0], Path(paths[0]).parent / "twin.png")
        both = [*paths, str(twin)]
        cache.build(both, hash_files(both))
        assert len(decoded) == 5
        assert (cache.folder / "images.bin").stat().st_size == 5 * 12 * 16
        assert_holds(cache, both)

    def test_a_bad_file_and_its_copy_are_named_each_by_its_own_path(self, cache, tmp_path):
        bad = [str(tmp_path / "one.png"), str(tmp_path / "two.png")]
        for path in bad:
            Path(path).write_bytes(b"bad")
        errors = cache.build(bad, hash_files(bad))
        assert all(path in errors[path] for path in bad)

    def test_a_changed_file_is_decoded_anew(self, cache, paths, decoded):
        cache.build(paths, hash_files(paths))
        write_image(Path(paths[2]), seed=99)
        cache.build(paths, hash_files(paths))
        assert decoded[5:] == [paths[2]]
        assert_holds(cache, paths)

    def test_more_files_extend_a_cache_that_is_in_use(self, cache, paths):
        cache.build(paths[:2], hash_files(paths[:2]))
        reader = ImageCache(cache.folder.parent, PREPROCESS, workers=0)
        assert_holds(reader, paths[:2])
        cache.build(paths, hash_files(paths))
        assert_holds(reader, paths)
        assert_holds(cache, paths)

    def test_an_absent_file_is_tried_again(self, cache, paths):
        hashes = hash_files(paths)
        moved = shutil.move(paths[1], paths[1] + ".moved")
        assert list(cache.build(paths, hashes)) == [paths[1]]
        shutil.move(moved, paths[1])
        assert cache.build(paths, hashes) == {}
        assert_holds(cache, paths)

    def test_a_bad_file_is_tried_again_with_other_decoders(self, cache, paths, decoded, monkeypatch):
        Path(paths[0]).write_bytes(b"bad")
        cache.build(paths, hash_files(paths))
        monkeypatch.setattr(cache_index, "decoder_versions", lambda: "newer")
        assert list(cache.build(paths, hash_files(paths))) == [paths[0]]
        assert decoded[5:] == [paths[0]]

    def test_each_preprocessing_has_its_own_folder(self, cache, paths):
        other = ImageCache(cache.folder.parent, Preprocess(size=(12, 16), normalizer="unit"), workers=0)
        assert other.folder != cache.folder
        cache.build(paths, hash_files(paths))
        with pytest.raises(DataError, match=r"expected 5 images in the cache .* but 5 are not there"):
            other.open(paths, hash_files(paths))

    def test_the_folder_says_what_is_in_it(self, cache, paths):
        cache.build(paths, hash_files(paths))
        assert '"size"' in (cache.folder / "preprocess.json").read_text()

    def test_the_size_on_disk_is_logged(self, cache, paths, caplog):
        with caplog.at_level(logging.INFO):
            cache.build(paths, hash_files(paths))
        assert f"5 images of 0.0 MB in {cache.folder}" in caplog.text

    def test_an_image_that_was_not_built_is_an_error(self, cache, paths):
        cache.build(paths, hash_files(paths))
        with pytest.raises(DataError, match=r"1 are not there \(first content hash: abc\); call build"):
            cache.rows(["abc"])

    def test_an_empty_list_is_no_work(self, cache):
        assert cache.build([], []) == {}
        assert cache.read(cache.rows([])).shape == (0, 12, 16)

    def test_a_file_that_turned_bad_is_an_error_without_a_cache(self, paths):
        images = UncachedImages(PREPROCESS, workers=0).open(paths, hash_files(paths))
        Path(paths[0]).write_bytes(b"bad")
        with pytest.raises(ImageError, match=r"000\.png.*the file has changed"):
            images[np.array([0])]


class TestFullDisk:
    REMEDY = r"cannot write the image cache .* \(960 bytes needed, \d+ free\); make room.*CXR_CACHE_DIR.*data\.cache"

    def test_shows_before_anything_is_decoded(self, cache, paths, decoded, monkeypatch):
        def refuse(descriptor: int, start: int, length: int) -> None:
            os.ftruncate(descriptor, start + length // 2)  # as far as it went
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as full:
            full.setattr(os, "posix_fallocate", refuse)
            with pytest.raises(DataError, match=self.REMEDY):
                cache.build(paths, hash_files(paths))
        assert decoded == []
        assert (cache.folder / "images.bin").stat().st_size == 0
        assert cache.build(paths, hash_files(paths)) == {}
        assert_holds(cache, paths)

    def test_shows_where_space_cannot_be_reserved_but_counted(self, cache, paths, monkeypatch):
        monkeypatch.delattr(os, "posix_fallocate")
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000, 900, 100))
        with pytest.raises(DataError, match=self.REMEDY):
            cache.build(paths, hash_files(paths))

    def test_a_file_system_without_reservation_is_good_enough(self, cache, paths, monkeypatch):
        def refuse(descriptor: int, start: int, length: int) -> None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

        monkeypatch.setattr(os, "posix_fallocate", refuse)
        assert cache.build(paths, hash_files(paths)) == {}
        assert_holds(cache, paths)

    def test_in_the_middle_keeps_what_is_stored(self, cache, tmp_path, monkeypatch):
        paths = write_images(tmp_path / "images", 40)
        real_sync, syncs = os.fsync, []

        def fill_up(descriptor: int) -> None:
            syncs.append(descriptor)
            if len(syncs) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real_sync(descriptor)

        with monkeypatch.context() as full:
            full.setattr(os, "fsync", fill_up)
            with pytest.raises(DataError, match=r"cannot write the image cache .*No space left"):
                cache.build(paths, hash_files(paths))
        assert_holds(cache, paths[:32])
        assert (cache.folder / "images.bin").stat().st_size == 32 * 12 * 16
        assert cache.build(paths, hash_files(paths)) == {}
        assert_holds(cache, paths)

    def test_a_full_index_is_the_same_error(self, cache, paths, monkeypatch):
        def refuse(*args: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(cache_module.CacheIndex, "add", refuse)
        with pytest.raises(DataError, match=r"cannot write the image cache .*: database or disk is full"):
            cache.build(paths, hash_files(paths))

    def test_a_folder_that_cannot_be_made_is_the_same_error(self, paths, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match=r"cannot write the image cache .*: .*Not a directory"):
            ImageCache(tmp_path / "file", PREPROCESS, workers=0).build(paths, hash_files(paths))

    def test_a_bound_shows_before_anything_is_decoded(self, paths, decoded, tmp_path):
        with pytest.raises(DataError, match=r"may hold 10 bytes, but 960 bytes more .*; raise data"):
            ImageCache(tmp_path / "cache", PREPROCESS, max_bytes=10).build(paths, hash_files(paths))
        assert decoded == []


class TestInUse:
    @pytest.fixture
    def reading(self, paths, tmp_path):
        """A cache that is read from, marked last two days ago, and its images."""
        cache = ImageCache(tmp_path / "cache", PREPROCESS, workers=0)
        cache.build(paths, hash_files(paths))
        images = cache.open(paths, hash_files(paths))
        images[np.array([0])]
        os.utime(cache.folder / MARK, (time.time() - 2 * SECONDS_IN_USE,) * 2)
        return cache, images

    @pytest.mark.parametrize("elsewhere", [False, True], ids=["this process", "a worker"])
    def test_reading_keeps_a_cache_longer_than_a_day(self, elsewhere, reading, paths, tmp_path, monkeypatch):
        cache, images = reading
        images = pickle.loads(pickle.dumps(images)) if elsewhere else images
        later = time.monotonic() + cache_module.SECONDS_BETWEEN_MARKS + 1
        monkeypatch.setattr(cache_module.time, "monotonic", lambda: later)
        images[np.array([0])]
        other = ImageCache(tmp_path / "cache", Preprocess(size=(8, 8)), workers=0, max_bytes=10)
        with pytest.raises(DataError, match=r"raise data.cache_max_gb"):
            other.build(paths, hash_files(paths))
        assert cache.folder.exists()

    def test_reading_marks_at_intervals_only(self, reading):
        cache, images = reading
        before = (cache.folder / MARK).stat().st_mtime
        images[np.array([1])]
        assert (cache.folder / MARK).stat().st_mtime == before


class TestDamage:
    def damage_images(self, folder: Path) -> None:
        os.truncate(folder / "images.bin", 100)

    def lose_images(self, folder: Path) -> None:
        (folder / "images.bin").unlink()

    def damage_index(self, folder: Path) -> None:
        (folder / "index.sqlite").write_bytes(b"this is no database" * 100)

    def empty_index(self, folder: Path) -> None:
        (folder / "index.sqlite").unlink()
        sqlite3.connect(folder / "index.sqlite").execute("CREATE TABLE other (x)").connection.close()

    def change_layout(self, folder: Path) -> None:
        with sqlite3.connect(folder / "index.sqlite") as connection:
            connection.execute("UPDATE layout SET layout = 'uint16 7x7'")
        connection.close()

    @pytest.mark.parametrize("damage", ["damage_images", "lose_images", "damage_index", "empty_index", "change_layout"])
    def test_is_an_error_for_readers_and_mended_by_a_build(self, damage, cache, paths, caplog):
        cache.build(paths, hash_files(paths))
        getattr(self, damage)(cache.folder)
        fresh = ImageCache(cache.folder.parent, PREPROCESS, workers=0)
        with pytest.raises(DataError, match="is damaged"):
            fresh.open(paths, hash_files(paths))
        assert fresh.build(paths, hash_files(paths)) == {}
        assert "it is built anew" in caplog.text
        assert_holds(fresh, paths)

    def test_a_file_that_shrinks_under_a_reader_is_an_error(self, cache, paths):
        cache.build(paths, hash_files(paths))
        images = ImageCache(cache.folder.parent, PREPROCESS, workers=0).open(paths, hash_files(paths))
        self.damage_images(cache.folder)
        with pytest.raises(DataError, match=r"is damaged: expected 5 images of 192 bytes in images.bin"):
            images[np.arange(5)]

    def test_a_locked_index_is_no_damage(self, cache, paths, monkeypatch):
        cache.build(paths, hash_files(paths))

        def refuse(*args: object, **options: object) -> None:
            raise sqlite3.OperationalError("database is locked")

        with monkeypatch.context() as locked:
            locked.setattr(sqlite3, "connect", refuse)
            with pytest.raises(DataError, match=r"cannot read the cache index .*: database is locked"):
                cache.build(paths, hash_files(paths))
        assert_holds(cache, paths)


def start_build(cache: ImageCache, images: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(Path(__file__).parent), str(cache.folder.parent), str(images)]
    return subprocess.Popen([*command, str(workers)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(cache: ImageCache, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if cache._index.path.exists() and len(cache._index.load().rows) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} rows within a minute")


class TestProcesses:
    def test_a_killed_build_is_continued(self, cache, tmp_path, decoded):
        paths = write_images(tmp_path / "images", 60)
        process = start_build(cache, tmp_path / "images", workers=0)
        wait_for_rows(cache, 16)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert cache.build(paths, hash_files(paths)) == {}
        assert 0 < len(decoded) <= 60 - 16
        assert_holds(cache, paths)

    def test_two_processes_may_build_at_once(self, cache, tmp_path):
        paths = write_images(tmp_path / "images", 40)
        builds = [start_build(cache, tmp_path / "images", workers=0) for _ in range(2)]
        outputs = [build.communicate(timeout=60) for build in builds]
        assert [output for output, _ in outputs] == ["{}\n", "{}\n"], outputs
        assert_holds(cache, paths)
        assert (cache.folder / "images.bin").stat().st_size == 40 * 12 * 16

    def test_a_script_without_a_main_guard_is_told_instead_of_waiting_for_itself(self, cache, paths, monkeypatch):
        monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
        with pytest.raises(RuntimeError, match="must do so under `if __name__ == '__main__':`"):
            cache.build(paths, hash_files(paths))
        assert not cache.folder.exists()

    def test_a_build_waits_for_another_and_says_so(self, cache, paths, caplog):
        cache.folder.mkdir(parents=True)
        with caplog.at_level(logging.INFO), ThreadPoolExecutor(1) as pool:
            with FileLock(cache.folder / "build.lock"):
                build = pool.submit(cache.build, paths, hash_files(paths))
                time.sleep(0.5)
                assert not build.done()
            assert build.result() == {}
        assert "another process builds the cache" in caplog.text
        assert_holds(cache, paths)

    @pytest.mark.slow
    def test_a_killed_build_leaves_no_worker_and_no_lock(self, cache, tmp_path):
        paths = write_images(tmp_path / "images", 400)
        process = start_build(cache, tmp_path / "images", workers=2)
        wait_for_rows(cache, 32)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert alive == []
        assert cache.build(paths, hash_files(paths)) == {}
        assert_holds(cache, paths)
