import numpy as np
import pytest
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from cxr.errors import ImageError
from cxr.imaging.dicom import DicomHeader, read_dicom_header
from cxr.imaging.dicom_header import name_uid

from .dicom_files import make_dataset

STORED = np.zeros((6, 4), dtype=np.uint16)


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_every_field(write_dicom):
    path = write_dicom(
        STORED,
        bits=12,
        photometric="MONOCHROME1",
        PatientID=" P 1 ",
        StudyInstanceUID="1.2",
        SeriesInstanceUID="1.2.3",
        ViewPosition="pa",
        BodyPartExamined="Chest",
        BurnedInAnnotation="NO",
        SeriesDescription="Chest PA",
        PatientOrientation=["L", "F"],
        Manufacturer="Maker",
        PatientSex="F",
        PatientAge="034Y",
        AcquisitionDate="20200102",
        AcquisitionTime="030405.5",
        NumberOfFrames=1,
    )
    assert read_dicom_header(path) == DicomHeader(
        patient_id="P 1",
        study_id="1.2",
        series_id="1.2.3",
        sop_instance_uid="1.2.3.4",
        view_position="PA",
        series_description="Chest PA",
        patient_orientation="L\\F",
        modality="CR",
        body_part="CHEST",
        burned_in_annotation="NO",
        sop_class=str(ComputedRadiographyImageStorage),
        manufacturer="Maker",
        sex="F",
        age=34.0,
        acquired="2020-01-02T03:04:05.500000",
        photometric_interpretation="MONOCHROME1",
        transfer_syntax=str(ExplicitVRLittleEndian),
        bits_stored=12,
        rows=6,
        columns=4,
        number_of_frames=1,
    )


def test_absent_and_empty_elements_are_none(write_dicom):
    header = read_dicom_header(write_dicom(STORED, PatientID="", ViewPosition="", PatientOrientation=""))
    for field in ("patient_id", "study_id", "view_position", "patient_orientation", "age", "acquired", "sex"):
        assert getattr(header, field) is None, field


AGES = [
    ({"PatientAge": "018M"}, 1.5),
    ({"PatientAge": "052W"}, 364 / 365.25),
    ({"PatientAge": "010D"}, 10 / 365.25),
    ({"PatientAge": "000Y"}, 0.0),
    ({"PatientAge": "81"}, 81.0),
    ({"PatientAge": "414Y"}, None),
    ({"PatientAge": "young"}, None),
    ({"PatientBirthDate": "20000101", "StudyDate": "20200101"}, 20.0),
    ({"PatientAge": "", "PatientBirthDate": "20000101", "StudyDate": "20200101"}, 20.0),
    ({"PatientBirthDate": "20200101", "StudyDate": "20000101"}, None),
    ({"PatientBirthDate": "20000101"}, None),
    ({"PatientBirthDate": "20001399", "StudyDate": "20200101"}, None),
]


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
@pytest.mark.parametrize(("elements", "expected"), AGES, ids=[" ".join(case[0].values()) for case in AGES])
def test_age(write_dicom, elements, expected):
    age = read_dicom_header(write_dicom(STORED, **elements)).age
    assert age is None if expected is None else age == pytest.approx(expected, abs=0.01)


MOMENTS = [
    ({"ContentDate": "20200102", "ContentTime": "0304", "StudyDate": "20190101"}, "2020-01-02T03:04:00"),
    ({"StudyDate": "20190101", "StudyTime": "120000"}, "2019-01-01T12:00:00"),
    ({"AcquisitionDate": "20180101", "StudyTime": "120000"}, "2018-01-01T00:00:00"),
    ({"AcquisitionDate": "20189999", "StudyDate": "20190101"}, "2019-01-01T00:00:00"),
    ({"StudyDate": "20190101", "StudyTime": "noon"}, "2019-01-01T00:00:00"),
    ({"StudyTime": "120000"}, None),
]


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
@pytest.mark.parametrize(("elements", "expected"), MOMENTS, ids=[str(case[1]) for case in MOMENTS])
def test_acquired(write_dicom, elements, expected):
    assert read_dicom_header(write_dicom(STORED, **elements)).acquired == expected


def test_later_images_sort_later(write_dicom):
    times = ["115959.999", "120000", "120000.25", "120001"]
    paths = [write_dicom(STORED, StudyDate="20200101", StudyTime=time) for time in times]
    acquired = [read_dicom_header(path).acquired for path in paths]
    assert acquired == sorted(acquired)


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_undecodable_numbers_are_none(tmp_path):
    dataset = make_dataset(STORED, NumberOfFrames=12345)
    path = tmp_path / "odd.dcm"
    dataset.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"12345 ", b"many  "))
    header = read_dicom_header(path)
    assert header.number_of_frames is None
    assert header.rows == 6


def test_header_without_preamble_has_no_transfer_syntax(tmp_path):
    dataset = make_dataset(STORED, ViewPosition="AP")
    dataset.preamble = None
    del dataset.file_meta
    path = tmp_path / "bare.dcm"
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    header = read_dicom_header(path)
    assert header.transfer_syntax is None
    assert header.view_position == "AP"


def test_header_of_a_file_cut_inside_its_pixels(write_dicom):
    path = write_dicom(np.zeros((100, 100), dtype=np.uint16), PatientID="P 1")
    path.write_bytes(path.read_bytes()[:-5000])
    assert read_dicom_header(path).patient_id == "P 1"


@pytest.mark.parametrize("content", [b"", b"plain text, nothing else" * 20, b"\x89PNG\r\n\x1a\n" + b"\0" * 300])
def test_what_is_not_dicom(tmp_path, content):
    path = tmp_path / "other.dcm"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"other\.dcm: expected a DICOM file, but got "):
        read_dicom_header(path)


def test_missing_file(tmp_path):
    with pytest.raises(ImageError, match=r"absent\.dcm: expected a DICOM file, but there is no such file"):
        read_dicom_header(tmp_path / "absent.dcm")


def test_uids_have_the_names_of_the_standard():
    assert name_uid(ExplicitVRLittleEndian) == "Explicit VR Little Endian"
    assert name_uid("1.2.3.4") == "1.2.3.4"
