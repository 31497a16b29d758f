"""Phantom cohorts on disk: the same bytes again, and folders that are never half a cohort."""

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pydicom
import pytest

from cxr.data.phantoms import tree
from cxr.data.phantoms.findings import NEGATIVE
from cxr.data.phantoms.job import Job
from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.tree import ensure_phantom_cohort, read_truth, write_folder_cohort, write_siim_cohort
from cxr.data.phantoms.worker import write_studies
from cxr.errors import ConfigError, DataError, MissingExtraError

TINY = CohortSpec(studies=3, size=32, encodings=("explicit",))


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pixels(path):
    dataset = pydicom.dcmread(path)
    values = dataset.pixel_array.astype(float)
    return -values if dataset.PhotometricInterpretation == "MONOCHROME1" else values


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    spec = replace(TINY, studies=5, encodings=("explicit", "implicit", "rle", "jpeg2000", "jpegls"))
    write_siim_cohort(spec, tmp_path / "one")
    write_siim_cohort(spec, tmp_path / "two")

    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_processes_and_a_script_needs_no_guard(tmp_path):
    script = (
        "from cxr.data.phantoms.tree import *; write_siim_cohort(CohortSpec(studies=24, size=32), 'two', workers=2)"
    )
    (tmp_path / "script.py").write_text(script)
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, timeout=120)
    write_siim_cohort(CohortSpec(studies=24, size=32), tmp_path / "one", workers=1)

    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_looks_whole(tmp_path):
    (tmp_path / "script.py").write_text(
        "from cxr.data.phantoms.tree import *\nwrite_siim_cohort(CohortSpec(studies=400, size=128), 'out', workers=2)"
    )
    process = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob(".out.partial-*/train/*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()

    assert list(tmp_path.glob(".out.partial-*/train/*"))
    assert not (tmp_path / "out").exists()
    ensure_phantom_cohort(tmp_path / "out", TINY)
    assert len(list(tmp_path.glob("out/train/*"))) == 3


def test_a_process_that_dies_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))

    with pytest.raises(DataError, match="process that draws phantoms to go on, but it ended with code 1; free memory"):
        write_siim_cohort(replace(TINY, studies=24), tmp_path / "out", workers=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_process_that_cannot_write_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    job = Job(replace(TINY, studies=24), tmp_path / "file", "siim")

    with pytest.raises(OSError, match="Not a directory"):
        write_studies(job, workers=2)


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    def fill(job, workers):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tree, "write_layout", fill)
    with pytest.raises(DataError, match="expected to write phantoms for .*No space left on device; free disk space"):
        write_siim_cohort(TINY, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_seed_gives_other_people(tmp_path):
    write_siim_cohort(TINY, tmp_path / "one")
    write_siim_cohort(replace(TINY, seed=1), tmp_path / "two")
    one, two = read_truth(tmp_path / "one"), read_truth(tmp_path / "two")

    assert not set(one["image_id"]) & set(two["image_id"])
    assert not set(one["patient_id"]) & set(two["patient_id"])


def test_confounded_source_shows_in_truth_header_and_corner(tmp_path):
    spec = CohortSpec(studies=8, size=128, confounded_source=True, encodings=("explicit",), vois=("none",))
    write_siim_cohort(replace(spec, photometrics=("MONOCHROME2",), rescale=False, bits_stored=(12,)), tmp_path / "out")
    truth = read_truth(tmp_path / "out")

    assert truth["gives_class_away"].all()
    for row in truth.itertuples():
        positive = row.class_name != NEGATIVE
        assert row.source == ("site-b" if positive else "site-a")
        image = pixels(row.image_path)
        assert (image[4:20, 106:126].max() > 3000) == positive
        assert (image[4:20, 2:22].max() > 3000) == (not positive)
        assert pydicom.dcmread(row.image_path).InstitutionName == f"Synthetic {row.source}"


def test_ensure_writes_once_and_again_when_the_settings_change(tmp_path):
    root = tmp_path / "cohort"
    ensure_phantom_cohort(root, TINY)
    stamp = (root / "phantom.json").stat().st_mtime_ns
    ensure_phantom_cohort(root, TINY)
    assert (root / "phantom.json").stat().st_mtime_ns == stamp

    ensure_phantom_cohort(root, replace(TINY, studies=2))
    assert len(list(root.glob("train/*"))) == 2
    ensure_phantom_cohort(root, TINY, layout="folder")
    assert len(list(root.rglob("*.png"))) == 3
    assert not list(root.rglob("*.dcm"))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["cohort"]


@pytest.mark.parametrize("foreign", ["notes.txt", "train/patient.dcm"])
def test_other_peoples_files_are_never_replaced(tmp_path, foreign):
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine")

    with pytest.raises(DataError, match="absent, empty or a phantom cohort, but it holds other files; name another"):
        ensure_phantom_cohort(tmp_path, TINY)
    assert (tmp_path / foreign).read_text() == "mine"


def test_a_file_added_to_a_cohort_is_not_lost(tmp_path):
    root = tmp_path / "cohort"
    write_folder_cohort(TINY, root)
    (root / "notes.txt").write_text("mine")

    ensure_phantom_cohort(root, TINY, layout="folder")
    with pytest.raises(DataError, match="holds other files"):
        write_folder_cohort(replace(TINY, seed=5), root)
    assert (root / "notes.txt").read_text() == "mine"


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("")

    with pytest.raises(DataError, match="expected a folder for the phantom cohort, but .*out is a file"):
        write_siim_cohort(TINY, tmp_path / "out")


@pytest.mark.parametrize("before", [False, True], ids=["absent", "older cohort"])
def test_a_run_that_dies_leaves_what_was_there(tmp_path, monkeypatch, before):
    root = tmp_path / "cohort"
    if before:
        write_siim_cohort(TINY, root)
    older = contents(root)

    def die(job, workers):
        (job.root / "train").mkdir()
        (job.root / "train_study_level.csv").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tree, "write_layout", die)
        with pytest.raises(KeyboardInterrupt):
            write_siim_cohort(replace(TINY, seed=9), root)
    assert contents(root) == older
    assert root.exists() == before

    ensure_phantom_cohort(root, replace(TINY, seed=9))
    assert json.loads((root / "phantom.json").read_text())["spec"]["seed"] == 9
    assert len(list(root.glob("train/*"))) == 3


@pytest.mark.parametrize(("encoding", "module"), [("jpeg2000", "openjpeg"), ("jpegls", "jpeg_ls")])
def test_an_absent_encoder_is_named_before_any_work(tmp_path, monkeypatch, encoding, module):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == module else find(name, *rest))

    with pytest.raises(MissingExtraError, match=rf"{module} is not installed.*cxr-lab\[phantoms\]"):
        write_siim_cohort(replace(TINY, encodings=("explicit", encoding)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_siim_cohort(TINY, tmp_path / "out")


def test_layout_and_test_fraction_are_checked(tmp_path):
    with pytest.raises(ConfigError, match=r"layout out of \['siim', 'folder'\], but got 'flat'"):
        ensure_phantom_cohort(tmp_path / "out", TINY, layout="flat")
    with pytest.raises(ConfigError, match="test_fraction from 0 to below 1, but got 1"):
        write_folder_cohort(TINY, tmp_path / "out", test_fraction=1.0)
    with pytest.raises(DataError, match=r"phantom_truth.csv in .*, but found none; make one"):
        read_truth(tmp_path)
