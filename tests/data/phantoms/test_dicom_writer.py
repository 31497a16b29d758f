"""Written DICOM files, read back by pydicom: every way of storing leads to the same picture."""

from dataclasses import replace
from io import BytesIO
from itertools import product

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from cxr.data.phantoms.anatomy import draw_person
from cxr.data.phantoms.cohort import ImagePlan
from cxr.data.phantoms.dicom_writer import ImageHeader, encode_dicom
from cxr.data.phantoms.radiograph import SOURCES, draw_exam, render
from cxr.data.phantoms.spec import BITS, ENCODINGS, PHOTOMETRICS, VOIS

PLAN = ImagePlan("PA", "position", "explicit", 12, "MONOCHROME2", "none", False)
HEADER = ImageHeader(
    uids=("2.25.11", "2.25.12", "2.25.13"),
    patient_id="PHANTOM-00000001",
    patient_number=7,
    sex="F",
    age=61,
    modality="CR",
    manufacturer="Agfa",
    institution="Synthetic site-a",
    date="20200301",
    time="101500",
    series_number=1,
    pixel_mm=6.25,
)
SYNTAXES = {
    "explicit": "1.2.840.10008.1.2.1",
    "implicit": "1.2.840.10008.1.2",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
    "jpegls": "1.2.840.10008.1.2.4.80",
}


@pytest.fixture(scope="module")
def radiograph():
    rng = np.random.default_rng(4)
    return render(draw_exam(draw_person(rng), "PA", SOURCES[0], 64, (), rng))


def read(data):
    return pydicom.dcmread(BytesIO(data))


def to_grey(dataset):
    """Modality LUT, VOI, then the range that the standard gives the result, then MONOCHROME1: grey values in [0, 1]."""
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(float)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    low, high = intercept, (2**dataset.BitsStored - 1) * slope + intercept
    if "VOILUTSequence" in dataset:
        low, high = 0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    grey = (values - low) / (high - low)
    return 1 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


@pytest.mark.parametrize("voi", VOIS)
@pytest.mark.parametrize("photometric", PHOTOMETRICS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_way_of_storing_shows_the_same_picture(radiograph, encoding, photometric, voi):
    for bits, rescale in product(BITS, (False, True)):
        plan = ImagePlan("PA", "position", encoding, bits, photometric, voi, rescale)
        dataset = read(encode_dicom(radiograph, plan, HEADER))

        assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[encoding]
        assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, bits, bits - 1)
        assert dataset.PhotometricInterpretation == photometric
        assert dataset.pixel_array.max() < 2**bits
        assert ("RescaleSlope" in dataset) == (rescale and voi != "lut")
        np.testing.assert_allclose(to_grey(dataset), radiograph.display, atol=8 / 2**bits + 1e-3)


def test_bright_means_dense_only_after_monochrome1_is_turned_round(radiograph):
    one, two = (
        read(encode_dicom(radiograph, replace(PLAN, photometric=name), HEADER)).pixel_array.astype(int)
        for name in ("MONOCHROME1", "MONOCHROME2")
    )

    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] == pytest.approx(-1, abs=1e-3)


def test_windowed_values_lie_inside_the_stored_range(radiograph):
    dataset = read(encode_dicom(radiograph, replace(PLAN, voi="window"), HEADER))

    assert dataset.pixel_array.min() > 0.05 * 4095
    assert dataset.pixel_array.max() < 0.91 * 4095


def test_the_header_says_who_when_and_how_and_that_it_is_synthetic(radiograph):
    dataset = read(encode_dicom(radiograph, PLAN, HEADER))

    assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID) == HEADER.uids
    assert dataset.file_meta.MediaStorageSOPInstanceUID == HEADER.uids[2]
    assert (dataset.PatientID, dataset.PatientSex, dataset.PatientAge) == ("PHANTOM-00000001", "F", "061Y")
    assert dataset.PatientName == "Phantom^0007"
    assert dataset.QualityControlImage == "YES"
    assert "ynthetic" in dataset.ImageComments
    assert "ynthetic" in dataset.PatientComments
    assert dataset.BurnedInAnnotation == "NO"
    assert dataset.StudyDate == dataset.AcquisitionDate == "20200301"
    assert dataset.AcquisitionTime == "101500"
    assert [float(value) for value in dataset.ImagerPixelSpacing] == [6.25, 6.25]


@pytest.mark.parametrize(
    ("modality", "sop_class"), [("CR", "1.2.840.10008.5.1.4.1.1.1"), ("DX", "1.2.840.10008.5.1.4.1.1.1.1")]
)
def test_modality_and_sop_class_agree(radiograph, modality, sop_class):
    dataset = read(encode_dicom(radiograph, PLAN, replace(HEADER, modality=modality)))

    assert dataset.Modality == modality
    assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == sop_class
    assert ("PresentationLUTShape" in dataset) == (modality == "DX")


@pytest.mark.parametrize(
    ("view", "known", "position", "description", "orientation"),
    [
        ("PA", "position", "PA", "Chest PA", ["L", "F"]),
        ("LATERAL", "position", "LL", "Chest lateral", ["P", "F"]),
        ("AP", "description", None, "Chest AP", None),
        ("LATERAL", "orientation", None, "Chest", ["P", "F"]),
        ("PA", "nowhere", None, "Chest", None),
    ],
)
def test_the_view_stands_where_the_plan_says(radiograph, view, known, position, description, orientation):
    dataset = read(encode_dicom(radiograph, replace(PLAN, view=view, view_known=known), HEADER))

    assert dataset.get("ViewPosition") == position
    assert dataset.SeriesDescription == description
    assert dataset.get("PatientOrientation") == orientation


def test_every_element_keeps_to_its_value_representation(radiograph):
    for voi in VOIS:
        data = encode_dicom(radiograph, replace(PLAN, voi=voi, rescale=True), HEADER)
        with pydicom.config.strict_reading():
            for element in read(data):
                assert element.value is not None
