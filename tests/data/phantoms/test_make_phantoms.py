"""The script and the contact sheet."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr.data.phantoms.tree import read_truth

SCRIPT = Path(__file__).parents[3] / "scripts" / "make_phantoms.py"


@pytest.fixture
def run(monkeypatch):
    """run("--studies", 3, ...): the script as a command."""

    def run_script(*arguments):
        monkeypatch.setattr(sys, "argv", ["make_phantoms.py", *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run_script


def test_writes_the_cohort_and_the_sheet_that_it_is_asked_for(run, tmp_path, capsys):
    out, sheet = tmp_path / "out", tmp_path / "docs" / "sheet.png"
    run("--studies", 4, "--size", 32, "--seed", 5, "--out", out, "--layout", "folder", "--contact-sheet", sheet,
        "--prevalence", 0, 1, 0, 0, "--confounded-source")  # fmt: skip

    truth = read_truth(out)
    assert len(truth) == 4
    assert set(truth["class_name"]) == {"Typical Appearance"}
    assert truth["gives_class_away"].all()
    assert f"4 synthetic studies in {out}" in capsys.readouterr().out
    image = cv2.imread(str(sheet), cv2.IMREAD_UNCHANGED)
    tiles = [tile for row in np.split(image, 4) for tile in np.split(row, 5, axis=1)]
    assert image.shape[1] == 1200
    assert sheet.stat().st_size < 700_000
    assert all(tile.std() > 30 for tile in tiles)
    assert len({tile.tobytes() for tile in tiles}) == 20


def test_dicom_studies_are_the_default(run, tmp_path):
    run("--studies", 2, "--size", 32, "--out", tmp_path / "out", "--encodings", "explicit")

    assert len(list(tmp_path.glob("out/train/*/*/*.dcm"))) >= 2


@pytest.mark.parametrize("out", ["file/out", "file/deeper/out", "/proc/out"])
def test_a_place_that_cannot_be_written_is_said_in_one_line(run, tmp_path, monkeypatch, capsys, out):
    """In /proc a lock could be waited for without end."""
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run("--studies", 1, "--size", 32, "--out", out)
    told = capsys.readouterr().err
    assert told.startswith(f"expected to write phantoms for {tmp_path / out}, but: ")
    assert told.endswith("; free disk space or name another folder\n")


def test_a_sheet_that_cannot_be_written_is_said_in_one_line(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        run("--studies", 1, "--size", 32, "--out", tmp_path / "out", "--contact-sheet", tmp_path / "file" / "sheet.png")
    assert f"expected to write the contact sheet {tmp_path}/file/sheet.png, but: " in capsys.readouterr().err


def test_what_is_wrong_is_said_in_one_line(run, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("--studies", 0, "--out", tmp_path / "out")

    assert capsys.readouterr().err.startswith("expected studies >= 1")
