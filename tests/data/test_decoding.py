import logging
import os
import re
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr import progress
from cxr.data import apart, decoding
from cxr.data.decoding import Decoded, decode_file, decode_files, decoder_versions
from cxr.errors import ImageError
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess

PREPROCESS = Preprocess(size=(12, 16))
WHITE, GREY = 255, 77


@dataclass(frozen=True)
class Troubled(Preprocess):
    """Warns about every image; one whose first pixel is white ends its process, one whose first is grey never ends."""

    def store(self, pixels: np.ndarray) -> np.ndarray:
        if pixels[0, 0] == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if pixels[0, 0] == GREY / np.float32(255):
            re.match(r"(a+)+$", "a" * 64 + "b")  # C code that holds the interpreter, as a codec does
        warnings.warn(f"odd width {pixels.shape[1]}", stacklevel=1)
        warnings.warn("old habit", DeprecationWarning, stacklevel=1)
        return super().store(pixels)


def write_images(folder: Path, count: int, first_pixel: int = 0) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(count)
    paths = []
    for number in range(count):
        pixels = random.integers(0, 256, (20, 24 + number % 3), dtype=np.uint8)
        pixels[0, 0] = first_pixel
        paths.append(str(folder / f"{number:03d}.png"))
        cv2.imwrite(paths[-1], pixels)
    return paths


def collect(paths: list[str], preprocess: Preprocess = PREPROCESS, workers: int = 0) -> dict[str, Decoded]:
    return {path: decoded for batch in decode_files(paths, preprocess, workers) for path, decoded in batch}


def test_a_decoded_file_is_what_preprocessing_stores(tmp_path):
    (path,) = write_images(tmp_path, 1)
    decoded = decode_file(path, PREPROCESS)
    np.testing.assert_array_equal(decoded.content, PREPROCESS.store(read_pixels(path)))
    assert decoded.error is None


def test_a_constant_image_is_a_lasting_error(tmp_path):
    path = str(tmp_path / "grey.png")
    cv2.imwrite(path, np.full((20, 30), 51, np.uint8))
    decoded = decode_file(path, PREPROCESS)
    assert decoded.error == f"{path}: constant image, every pixel is 0.2; expected at least two grey values"
    assert decoded.lasting


def test_bytes_that_are_no_image_are_a_lasting_error(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no image")
    decoded = decode_file(str(path), PREPROCESS)
    assert str(path) in decoded.error
    assert decoded.lasting


def test_an_absent_file_is_an_error_of_the_moment(tmp_path):
    decoded = decode_file(str(tmp_path / "absent.png"), PREPROCESS)
    assert "absent.png" in decoded.error
    assert not decoded.lasting


def test_too_little_memory_is_an_error_of_the_moment(tmp_path, monkeypatch):
    def exhaust(path: str) -> None:
        raise ImageError("too large") from MemoryError()

    monkeypatch.setattr(decoding, "read_pixels", exhaust)
    (path,) = write_images(tmp_path, 1)
    assert decode_file(path, PREPROCESS) == Decoded(error=f"{path}: too large")


def test_warnings_are_logged_once_per_kind_with_their_count(tmp_path, caplog):
    paths = write_images(tmp_path, 40)
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")  # none may leak
        collect(paths, Troubled(size=(12, 16)))
    (record,) = caplog.records
    assert record.message == "odd width 24 (40 times while decoding)"


def test_the_versions_change_when_a_decoder_is_absent(monkeypatch):
    usual = decoder_versions()
    assert "pydicom" in usual
    monkeypatch.setattr(decoding, "DECODING_PACKAGES", ("no-such-package",))
    assert decoder_versions() == '{"no-such-package": null}'


def test_processes_give_the_same_in_the_same_order(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(apart, "FILES_PER_WORKER_AND_BATCH", 2)
    paths = write_images(tmp_path, 10)
    decoded = collect(paths, Troubled(size=(12, 16)), workers=2)
    assert list(decoded) == paths
    for path in paths:
        np.testing.assert_array_equal(decoded[path].content, PREPROCESS.store(read_pixels(path)))
    assert "(10 times while decoding" in caplog.text


@pytest.mark.parametrize("workers", [1, 2])
def test_a_crash_costs_one_file(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(apart, "FILES_PER_WORKER_AND_BATCH", 2)
    paths = write_images(tmp_path, 6)
    (deadly,) = write_images(tmp_path / "deadly", 1, first_pixel=WHITE)
    paths.insert(2, deadly)
    decoded = collect(paths, Troubled(size=(12, 16)), workers)
    assert list(decoded) == paths
    assert decoded[deadly].error == (
        f"{deadly}: expected an image, but the process that decoded it was killed or crashed; "
        "export the file again, leave it out, or free memory"
    )
    assert not decoded[deadly].lasting
    assert [path for path in paths if decoded[path].content is None] == [deadly]


def test_a_codec_that_never_ends_costs_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "SECONDS_PER_FILE", 2.0)
    paths = write_images(tmp_path, 3)
    (endless,) = write_images(tmp_path / "endless", 1, first_pixel=GREY)
    paths.insert(1, endless)
    decoded = collect(paths, Troubled(size=(12, 16)), workers=1)
    assert decoded[endless].error == (
        f"{endless}: expected an image within 2 s, but decoding it took longer and was stopped; "
        "export the file again or leave it out"
    )
    assert not decoded[endless].lasting
    assert [path for path in paths if decoded[path].content is None] == [endless]


@dataclass(frozen=True)
class Wordy(Preprocess):
    """Prints like a codec, past Python."""

    def store(self, pixels: np.ndarray) -> np.ndarray:
        os.write(2, b"Unsupported JPEG data precision 12")
        return super().store(pixels)


def test_what_codecs_print_stays_in_their_process(tmp_path, capfd):
    (decoded,) = collect(write_images(tmp_path, 1), Wordy(), workers=1).values()
    assert decoded.content is not None
    assert capfd.readouterr().err == ""


def test_few_files_start_few_processes(tmp_path, monkeypatch):
    started = []
    start_pool = apart._start_pool
    monkeypatch.setattr(apart, "_start_pool", lambda count: started.append(count) or start_pool(count))
    collect(write_images(tmp_path, 3), workers=8)
    assert started == [1]
    assert collect([], workers=8) == {}
    assert started == [1]


def test_decodes_here_where_processes_cannot_start(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(apart, "_prepare_worker", os.abort)
    paths = write_images(tmp_path, 3)
    decoded = collect(paths, workers=2)
    assert list(decoded) == paths
    assert all(one.content is not None for one in decoded.values())
    assert "worker processes cannot start here" in caplog.text


def test_a_progress_bar_appears_when_it_takes_long(tmp_path, monkeypatch, capsys):
    paths = write_images(tmp_path, 40)
    collect(paths)
    assert "decoding images" not in capsys.readouterr().err
    monkeypatch.setattr(progress, "SECONDS_BEFORE_PROGRESS", 0.0)
    collect(paths)
    assert "decoding images" in capsys.readouterr().err
