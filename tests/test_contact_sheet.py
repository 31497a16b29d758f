import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "contact_sheet.py"


@pytest.fixture
def run(monkeypatch):
    """run("sheet.png", "folder"): the script as a command."""

    def run_script(*arguments):
        monkeypatch.setattr(sys, "argv", ["contact_sheet.py", *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run_script


@pytest.fixture
def images(tmp_path):
    """A folder with an image of noise and a file that is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8))
    (folder / "b.png").write_bytes(b"no image")
    return folder


def test_shows_an_image_and_why_a_file_gives_none(run, images, tmp_path, capsys):
    run(tmp_path / "sheet.png", images, "--columns", 1)
    image, error = np.split(cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_UNCHANGED), 2)
    assert image.shape[1] == 320
    assert image.std() > error.std() > 0
    assert "sheet.png: 2 files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sheet.gifx", "images"], "expected an output file that ends in .png, got .*sheet.gifx; change its name"),
        (["sheet.png", "images", "--columns", "0"], "expected --columns to be 1 or more, got 0; change it"),
        (["sheet.png", "empty"], "expected files in empty, found none; name others"),
        (["images/a.png/sheet.png", "images"], "expected to write images/a.png/sheet.png, but: .*; name another place"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, images, tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    assert re.search(f"contact_sheet.py: error: {message}\\n$", capsys.readouterr().err)
    assert not list(tmp_path.glob("sheet*"))
