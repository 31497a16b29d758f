"""The header of a DICOM file as plain values. Knows nothing of pixels, of cohorts or of which view is wanted."""

import re
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pydicom.valuerep import DA, TM

from cxr.imaging.dicom_file import read_data_set, without_pydicom_words
from cxr.imaging.guard import image_error

_TEXTS = {
    "patient_id": "PatientID",
    "study_id": "StudyInstanceUID",
    "series_id": "SeriesInstanceUID",
    "sop_instance_uid": "SOPInstanceUID",
    "series_description": "SeriesDescription",
    "patient_orientation": "PatientOrientation",
    "manufacturer": "Manufacturer",
    "sop_class": "SOPClassUID",
}
_CODES = {
    "view_position": "ViewPosition",
    "modality": "Modality",
    "sex": "PatientSex",
    "photometric_interpretation": "PhotometricInterpretation",
    "body_part": "BodyPartExamined",
    "burned_in_annotation": "BurnedInAnnotation",
}
_COUNTS = {
    "bits_stored": "BitsStored",
    "rows": "Rows",
    "columns": "Columns",
    "number_of_frames": "NumberOfFrames",
}
_MOMENTS = (
    ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"),
    ("StudyDate", "StudyTime"),
)
_TAGS = [
    *_TEXTS.values(),
    *_CODES.values(),
    *_COUNTS.values(),
    *(keyword for moment in _MOMENTS for keyword in moment),
    "PatientAge",
    "PatientBirthDate",
]
_DAYS_PER_YEAR = 365.25
_DAYS_PER_UNIT = {"D": 1.0, "W": 7.0, "M": _DAYS_PER_YEAR / 12, "Y": _DAYS_PER_YEAR, "": _DAYS_PER_YEAR}
_OLDEST = 130


@dataclass(frozen=True)
class DicomHeader:
    """What a cohort needs to know of one DICOM file. A value that is absent, empty or invalid is None.

    Attributes:
        view_position: Upper case, for example ``"PA"``, ``"AP"``, ``"LL"``.
        patient_orientation: As in the file, for example ``"L\\F"``.
        body_part: Upper case, for example ``"CHEST"``.
        sex: Upper case, for example ``"F"``.
        age: Years at the study, from Patient's Age, else from the birth date; 0 to 130.
        acquired: ISO 8601 date and time of acquisition, else of content, else of the study; sorts by time.
        burned_in_annotation: ``"YES"`` where the pixels are said to hold text that may name the patient.
        sop_class: UID of what kind of object the file is.
        transfer_syntax: UID; None for a file without file meta information.
    """

    patient_id: str | None
    study_id: str | None
    series_id: str | None
    sop_instance_uid: str | None
    view_position: str | None
    series_description: str | None
    patient_orientation: str | None
    modality: str | None
    body_part: str | None
    burned_in_annotation: str | None
    sop_class: str | None
    manufacturer: str | None
    sex: str | None
    age: float | None
    acquired: str | None
    photometric_interpretation: str | None
    transfer_syntax: str | None
    bits_stored: int | None
    rows: int | None
    columns: int | None
    number_of_frames: int | None


def read_dicom_header(path: Path | str) -> DicomHeader:
    """Read the header of a DICOM file, not its pixels; a missing preamble or file meta is accepted. Warns of nothing.

    Args:
        path: The file.

    Returns:
        Its header.

    Raises:
        ImageError: If the file holds none of the elements of a DICOM header.
    """
    dataset = read_data_set(path, stop_before_pixels=True, specific_tags=_TAGS)
    if not len(dataset):
        raise image_error(path, "expected a DICOM file, but got no DICOM header element; check the file")
    with without_pydicom_words():
        return _describe(dataset)


def _describe(dataset: Dataset) -> DicomHeader:
    values: dict[str, Any] = {field: _text(dataset, keyword) for field, keyword in _TEXTS.items()}
    values |= {field: _upper(_text(dataset, keyword)) for field, keyword in _CODES.items()}
    values |= {field: _count(dataset, keyword) for field, keyword in _COUNTS.items()}
    return DicomHeader(
        **values,
        age=_age(dataset),
        acquired=_acquired(dataset),
        transfer_syntax=_text(dataset.file_meta, "TransferSyntaxUID"),
    )


def name_uid(uid: str) -> str:
    """The standard's name of a UID, for example ``"JPEG 2000 Image Compression"``; an unknown UID is its own name."""
    return str(UID(uid).name)


def _value(dataset: Dataset, keyword: str) -> Any:
    """The element's value, or None where it is absent or cannot be decoded."""
    try:
        return dataset.get(keyword)
    except Exception:  # a damaged element makes pydicom raise nearly any type
        return None


def _text(dataset: Dataset, keyword: str) -> str | None:
    value = _value(dataset, keyword)
    if value is None:
        return None
    several = isinstance(value, MultiValue)
    text = ("\\".join(map(str, value)) if several else str(value)).strip(" \0")
    return text if text else None


def _upper(text: str | None) -> str | None:
    return None if text is None else text.upper()


def _count(dataset: Dataset, keyword: str) -> int | None:
    value = _value(dataset, keyword)
    return int(value) if isinstance(value, int) else None


def _date(dataset: Dataset, keyword: str) -> date | None:
    try:
        parsed = DA(_text(dataset, keyword))
    except (ValueError, TypeError):
        return None
    return None if parsed is None else date(parsed.year, parsed.month, parsed.day)


def _time(dataset: Dataset, keyword: str) -> time | None:
    try:
        parsed = TM(_text(dataset, keyword))
    except (ValueError, TypeError):
        return None
    return None if parsed is None else time(parsed.hour, parsed.minute, parsed.second, parsed.microsecond)


def _acquired(dataset: Dataset) -> str | None:
    for date_keyword, time_keyword in _MOMENTS:
        day = _date(dataset, date_keyword)
        if day is not None:
            clock = _time(dataset, time_keyword)
            return datetime.combine(day, time() if clock is None else clock).isoformat()
    return None


def _age(dataset: Dataset) -> float | None:
    """Years; a number without a unit counts as years, since public sets (NIH, RSNA) write it so."""
    text = _text(dataset, "PatientAge")
    match = None if text is None else re.fullmatch(r"(\d{1,3})([DWMY]?)", text.upper())
    if match is not None:
        return _plausible(int(match[1]) * _DAYS_PER_UNIT[match[2]] / _DAYS_PER_YEAR)
    birth, study = _date(dataset, "PatientBirthDate"), _date(dataset, "StudyDate")
    return None if birth is None or study is None else _plausible((study - birth).days / _DAYS_PER_YEAR)


def _plausible(years: float) -> float | None:
    return years if 0 <= years <= _OLDEST else None
