"""Damaged files by the hundred and, marked `verify`, by the thousand: no crash, no hang, bounded memory."""

import os

import numpy as np
import pytest
from PIL import Image

from cxr.errors import ImageError

from . import fuzzing
from .fuzzing import judge, mutated_file, read_apart, whole_files

MOST_MEMORY = 1.5 * 2**30


def test_a_hundred_damaged_files_are_images_or_errors(tmp_path):
    report = read_apart(tmp_path, seed=0, count=100)
    assert report.wrong == []
    assert report.images + report.refused == 100
    assert report.images >= 10
    assert report.refused >= 10
    assert report.peak_bytes < MOST_MEMORY


@pytest.mark.verify
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_five_thousand_damaged_files_are_images_or_errors(tmp_path, seed):
    report = read_apart(tmp_path, seed, count=5000)
    print(f"seed {seed}: {report.images} images, {report.refused} errors, peak {report.peak_bytes / 2**20:.0f} MB")
    assert report.wrong == []
    assert report.images + report.refused == 5000
    assert report.peak_bytes < MOST_MEMORY


@pytest.mark.filterwarnings("ignore:.*the file has 2 frames:UserWarning")
@pytest.mark.filterwarnings("ignore:.*the window or VOI LUT does not fit:UserWarning")
def test_the_whole_files_are_images_in_every_transfer_syntax_and_format(tmp_path):
    files = whole_files(tmp_path)
    path = tmp_path / "whole"
    for name, content in files:
        path.write_bytes(content)
        assert judge(path, name) == {"refused" if name in ("WEBP", "GIF") else "image": 1}, name
    assert len({name.split(",")[0] for name, _ in files}) == 17


def test_a_file_can_be_made_again(tmp_path):
    assert mutated_file(tmp_path, 5, 17) == mutated_file(tmp_path, 5, 17)
    assert len({mutated_file(tmp_path, 5, number) for number in range(50)}) == 50


def test_a_crash_is_found_and_the_next_file_is_read(tmp_path, monkeypatch):
    lines = [{"title": "file 0"}, {"image": 1}, {"title": "file 1"}]
    runs = [(lines, -11), ([{"title": "file 2"}, {"refused": 1}, {"peak": 5}], 0)]
    monkeypatch.setattr(fuzzing, "_run_child", lambda folder, seed, first, count: runs.pop(0))
    report = read_apart(tmp_path, 0, 3)
    assert (report.images, report.refused, report.peak_bytes) == (1, 1, 5)
    assert report.wrong == ["file 1 ended its process: -11"]


def test_a_reader_that_does_not_start_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzzing, "_run_child", lambda *arguments: ([], 1))
    with pytest.raises(RuntimeError, match="the reading process ended before its first file: 1"):
        read_apart(tmp_path, 0, 3)


WRONG = {
    "two lines": (ImageError("x: expected\nthis"), "message"),
    "without the path": (ImageError("expected this"), "message"),
    "another error": (KeyError("x"), "KeyError"),
    "not finite": (np.full((2, 2), np.nan, np.float32), "not in"),
    "too bright": (np.full((2, 2), 1.1, np.float32), "not in"),
    "float64": (np.zeros((2, 2)), "float64"),
    "no pixels": (np.zeros((0, 2), np.float32), "(0, 2)"),
}


@pytest.mark.parametrize(("result", "fault"), WRONG.values(), ids=WRONG.keys())
def test_what_is_neither_is_found(tmp_path, monkeypatch, result, fault):
    def read(path: os.PathLike) -> np.ndarray:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(fuzzing, "read_pixels", read)
    assert fault in judge(tmp_path / "x", "file 0")["fault"]


def test_an_image_is_an_image(tmp_path):
    Image.new("L", (3, 3), 7).save(tmp_path / "x.png")
    assert judge(tmp_path / "x.png", "file 0") == {"image": 1}
