"""What pydicom warns and logs quotes values of elements, so none of it may reach a run's log."""

import logging
import threading
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from cxr.errors import ImageError
from cxr.imaging.dicom import read_dicom, read_dicom_header
from cxr.imaging.dicom_file import read_data_set, without_pydicom_words
from cxr.imaging.dicom_identity import read_identity

from .dicom_files import make_dataset, save

STORED = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
SECRET = "DOE^JANE"
WORDY = {
    "uid": {"StudyInstanceUID": f"1.2.{SECRET}", "SOPInstanceUID": f"1..{SECRET}"},
    "too long": {"PatientID": SECRET * 20, "ViewPosition": SECRET.lower() * 3},
    "age and dates": {"PatientAge": SECRET, "StudyDate": SECRET, "PatientBirthDate": SECRET, "ContentTime": SECRET},
    "character set": {"SpecificCharacterSet": SECRET, "PatientID": SECRET},
    "numbers": {"NumberOfFrames": 1, "PatientSex": f"{SECRET}\\M", "Manufacturer": SECRET * 30},
}


@pytest.fixture
def heard(caplog):
    """Function that gives everything warned and logged, at any level, so far."""
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        yield lambda: [str(one.message) for one in caught] + [record.getMessage() for record in caplog.records]


def write_wordy(path, elements, stored=STORED, syntax=ExplicitVRLittleEndian, **more):
    with without_pydicom_words(), pydicom.config.disable_value_validation():
        dataset = make_dataset(stored, bits=12, **more)
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset.file_meta.ImplementationVersionName = SECRET
        return save(path, dataset, stored, syntax)


@pytest.mark.parametrize("elements", WORDY.values(), ids=WORDY.keys())
def test_invalid_values_are_read_without_a_word(tmp_path, heard, elements):
    path = write_wordy(tmp_path / "wordy.dcm", elements)
    read_dicom_header(path)
    read_identity(path)
    read_dicom(path)
    assert heard() == []


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_several_frames_are_told_in_our_own_words(tmp_path, heard, syntax):
    frames = np.concatenate([STORED, STORED])
    path = write_wordy(tmp_path / "frames.dcm", WORDY["uid"], frames, syntax, Rows=64, NumberOfFrames=2)
    read_dicom_header(path)
    read_dicom(path)
    assert heard() == [f"{path}: the file has 2 frames; only the first is read"]


def test_pydicom_would_have_spoken(tmp_path, heard):
    path = write_wordy(tmp_path / "wordy.dcm", WORDY["uid"])
    assert pydicom.dcmread(path).StudyInstanceUID
    assert len([text for text in heard() if SECRET in text]) == 2  # a warning and a record


@pytest.mark.parametrize("kept", [150, 300, 600, 2000])
def test_damaged_files_are_refused_without_a_word(tmp_path, heard, kept):
    path = write_wordy(tmp_path / "cut.dcm", WORDY["uid"])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ImageError):
        read_dicom(path)
    assert heard() == []


def test_threads_leave_warnings_and_log_as_they_were(tmp_path, heard):
    path = write_wordy(tmp_path / "wordy.dcm", WORDY["uid"])
    filters, show = list(warnings.filters), warnings.showwarning
    threads = [threading.Thread(target=lambda: [read_dicom_header(path) for _ in range(30)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard() == []
    assert (warnings.filters, warnings.showwarning) == (filters, show)
    assert logging.getLogger("pydicom").propagate


def test_an_error_leaves_the_log_as_it_was(tmp_path):
    with pytest.raises(ImageError, match=r"absent\.dcm: expected a DICOM file, but there is no such file"):
        read_data_set(tmp_path / "absent.dcm")
    assert logging.getLogger("pydicom").propagate
