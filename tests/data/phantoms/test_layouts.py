"""The files and tables of both layouts, against headers, truth and the official formats."""

import ast
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom

from cxr.data.phantoms.findings import ATYPICAL, CLASS_NAMES, NEGATIVE, TYPICAL
from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.tree import read_truth, write_folder_cohort


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
    write_folder_cohort(CohortSpec(studies=3, size=32), tmp_path / "out")

    assert {path.parts[-2] for path in (tmp_path / "out").glob("*/*.png")} <= set(CLASS_NAMES)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3
