"""Phantom cohorts on disk: the layouts, the same bytes again, and folders that are never half a cohort."""

import ast
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest

from cxr.data.phantoms import tree
from cxr.data.phantoms.findings import ATYPICAL, CLASS_NAMES, NEGATIVE, TYPICAL
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


def test_study_table_is_the_official_one(siim_cohort, spec):
    table = pd.read_csv(siim_cohort / "train_study_level.csv")

    assert list(table.columns) == ["id", *CLASS_NAMES]
    assert table["id"].str.endswith("_study").all()
    assert len(table) == spec.studies
    assert (table[list(CLASS_NAMES)].sum(axis=1) == 1).all()


def test_image_table_is_the_official_one(siim_cohort):
    table = pd.read_csv(siim_cohort / "train_image_level.csv", keep_default_na=False)
    truth = read_truth(siim_cohort).set_index("image_id")

    assert list(table.columns) == ["id", "boxes", "label", "StudyInstanceUID"]
    assert len(table) == len(truth)
    for row in table.itertuples():
        known = truth.loc[row.id.removesuffix("_image")]
        boxes = ast.literal_eval(row.boxes) if row.boxes else []
        corners = [[b["x"], b["y"], b["x"] + b["width"], b["y"] + b["height"]] for b in boxes]
        words = row.label.split()
        assert known["study_id"] == row.StudyInstanceUID
        assert len(boxes) == known["boxes"]
        assert boxes or row.label == "none 1 0 0 1 1"
        if boxes:
            assert words[::6] == ["opacity"] * len(boxes)
            np.testing.assert_allclose(
                [float(w) for i, w in enumerate(words) if i % 6 > 1], np.ravel(corners), atol=0.02
            )
            assert min(map(min, corners)) >= 0
            assert max(map(max, corners)) <= 96


def test_boxes_lie_where_the_classes_have_them(siim_cohort):
    table = pd.read_csv(siim_cohort / "train_image_level.csv", keep_default_na=False)
    truth = read_truth(siim_cohort).set_index("image_id")
    truth["box_list"] = [
        ast.literal_eval(text) if text else []
        for text in table.set_index(table["id"].str.removesuffix("_image"))["boxes"].reindex(truth.index)
    ]
    typical = truth[(truth["class_name"] == TYPICAL) & (truth["boxes"] > 0)]

    assert (truth.loc[truth["class_name"] == NEGATIVE, "boxes"] == 0).all()
    assert (truth.loc[truth["findings"].isin(["effusion", "pneumothorax"]), "boxes"] == 0).all()
    assert len(typical) > 0
    for boxes in typical["box_list"]:
        middles = np.array([(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]) / 96
        assert middles[:, 0].min() < 0.4
        assert middles[:, 0].max() > 0.6
        assert middles[:, 1].mean() > 0.4


def test_files_lie_where_the_tables_and_headers_say(siim_cohort):
    truth = read_truth(siim_cohort)
    found = sorted(path.relative_to(siim_cohort).as_posix() for path in siim_cohort.glob("train/*/*/*.dcm"))

    assert found == sorted(truth["path"])
    for row in truth[truth["duplicate_kind"] != "exact"].itertuples():
        dataset = pydicom.dcmread(row.image_path)
        assert Path(row.path).parts[1:] == (
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID, f"{dataset.SOPInstanceUID}.dcm"
        )  # fmt: skip
        assert (dataset.PatientID, dataset.PatientSex) == (row.patient_id, row.sex)
        assert int(dataset.PatientAge[:3]) == row.age
        assert dataset.Rows == dataset.Columns == 96


def test_patients_come_back_with_the_same_body(siim_cohort):
    truth = read_truth(siim_cohort)
    originals = truth[truth["duplicate_kind"] == ""]
    per_patient = originals.groupby("patient_id")

    assert per_patient["study_id"].nunique().max() > 1
    assert (per_patient["sex"].nunique() == 1).all()
    assert (per_patient["age"].nunique() == 1).all()


def test_second_images_are_later_and_of_another_view(siim_cohort):
    truth = read_truth(siim_cohort)
    doubles = truth[truth["study_id"].duplicated(keep=False)].sort_values("image_number").groupby("study_id")

    assert len(doubles) == 4
    for _, images in doubles:
        times = [pydicom.dcmread(path).AcquisitionTime for path in images["image_path"]]
        assert times[0] < times[1]
        assert images["view"].nunique() == 2


def test_exact_duplicates_are_byte_copies_in_another_study(siim_cohort):
    truth = read_truth(siim_cohort)
    copies = truth[truth["duplicate_kind"] == "exact"]

    assert len(copies) > 0
    for copy in copies.itertuples():
        original = truth[(truth["study_id"] == copy.duplicate_of) & (truth["image_number"] == 1)].iloc[0]
        assert Path(copy.image_path).read_bytes() == Path(original["image_path"]).read_bytes()
        assert copy.study_id != original["study_id"]
        assert copy.class_name == original["class_name"]


def test_near_duplicates_look_alike_and_are_not(siim_cohort):
    truth = read_truth(siim_cohort)
    copies = truth[truth["duplicate_kind"] == "near"]

    assert len(copies) > 0
    for copy in copies.itertuples():
        original = truth[(truth["study_id"] == copy.duplicate_of) & (truth["image_number"] == 1)].iloc[0]
        first, second = pixels(copy.image_path), pixels(original["image_path"])
        assert not np.array_equal(first, second)
        assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.97
        assert copy.patient_id != original["patient_id"]


def test_truth_tells_what_was_drawn(siim_cohort):
    truth = read_truth(siim_cohort)
    drawn = truth["d_prime"] > 0
    frontal = truth["view"] != "LATERAL"

    assert set(truth["class_name"]) == set(CLASS_NAMES)
    assert not drawn[truth["class_name"] == NEGATIVE].any()
    assert not drawn[~frontal].any()
    for row in truth[frontal].itertuples():
        values = [float(value) for value in row.visibility.split(";")] if row.visibility else []
        assert len(values) == len(row.findings.split(";")) * (row.class_name != NEGATIVE)
        assert (max(values, default=0) > 0) == (row.d_prime > 0)
    assert not truth["gives_class_away"].any()
    assert (truth.loc[truth["class_name"] == ATYPICAL, "findings"] != "").any()


def test_folders_hold_grey_pngs_by_class_and_part(folder_cohort):
    truth = read_truth(folder_cohort)
    parts = truth["path"].str.split("/").str[0]

    assert sorted(path.relative_to(folder_cohort).as_posix() for path in folder_cohort.rglob("*.png")) == sorted(
        truth["path"]
    )
    assert (truth["path"].str.split("/").str[1] == truth["class_name"]).all()
    assert set(parts) == {"train", "test"}
    assert (truth.assign(part=parts).groupby("patient_id")["part"].nunique() == 1).all()
    image = cv2.imread(truth["image_path"][0], cv2.IMREAD_UNCHANGED)
    assert image.shape == (48, 48)
    assert image.dtype == np.uint8


def test_folders_without_test_part_have_classes_at_the_top(tmp_path):
    write_folder_cohort(TINY, tmp_path / "out")

    assert {path.parts[-2] for path in (tmp_path / "out").glob("*/*.png")} <= set(CLASS_NAMES)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


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
