"""Which elements of a DICOM file could tell who the patient is. Knows nothing of pixels; reports names, never values.

The elements are those of the Basic Application Level Confidentiality Profile (DICOM PS3.15, Table E.1-1) that are
filled in practice. Not guaranteed: text inside the pixels, and free text in other elements, are not looked at.
"""

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from cxr.imaging.dicom_file import read_data_set, without_pydicom_words
from cxr.imaging.guard import image_errors

PATIENT = (
    *("PatientName", "PatientBirthDate", "PatientBirthName", "PatientMotherBirthName", "PatientAddress"),
    *("PatientTelephoneNumbers", "PatientTelecomInformation", "OtherPatientIDs", "OtherPatientIDsSequence"),
    *("OtherPatientNames", "MilitaryRank", "IssuerOfPatientID", "PatientInsurancePlanCodeSequence"),
    *("AccessionNumber", "AdmissionID", "ResponsiblePerson", "MedicalRecordLocator", "CountryOfResidence"),
)
PLACES_AND_STAFF = (
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "DeviceSerialNumber"),
    *("ReferringPhysicianName", "ReferringPhysicianAddress", "ReferringPhysicianTelephoneNumbers"),
    *("PerformingPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingPhysician"),
    *("OperatorsName", "ScheduledPerformingPhysicianName", "RequestingService", "VerifyingObserverName"),
)
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime", "InstanceCreationDate")
_BLANK = {"", "NONE", "REMOVED", "ANONYMOUS", "ANONYMIZED", "ANONYMISED", "DEIDENTIFIED", "DE-IDENTIFIED", "UNKNOWN"}


@dataclass(frozen=True)
class Identity:
    """The filled elements of one file that could tell who the patient is, by keyword, each once.

    Attributes:
        patient: Of `PATIENT`.
        places_and_staff: Of `PLACES_AND_STAFF`.
        dates: Of `DATES`.
        private_groups: Groups of private elements, for example ``"0009"``.
        declared_removed: Whether Patient Identity Removed is YES.
    """

    patient: tuple[str, ...]
    places_and_staff: tuple[str, ...]
    dates: tuple[str, ...]
    private_groups: tuple[str, ...]
    declared_removed: bool


def read_identity(path: Path | str) -> Identity:
    """Look through the whole header of a DICOM file, sequences included.

    Raises:
        ImageError: If the header cannot be read.
    """
    with image_errors(path, "a DICOM file"), without_pydicom_words():
        dataset = read_data_set(path, stop_before_pixels=True)
        filled, groups = _walk(dataset)
        removed = _is_yes(dataset)
    patient, places_and_staff, dates = (
        tuple(name for name in names if name in filled) for names in (PATIENT, PLACES_AND_STAFF, DATES)
    )
    return Identity(patient, places_and_staff, dates, tuple(sorted(groups)), removed)


def _walk(dataset: Dataset) -> tuple[set[str], set[str]]:
    """Keywords of the filled standard elements, and the private groups."""
    filled, groups = set(), set()
    for element in dataset.iterall():
        if element.tag.is_private:
            groups.add(f"{element.tag.group:04X}")
        elif _is_filled(element):
            filled.add(element.keyword)
    return filled, groups


def _is_filled(element: DataElement) -> bool:
    if element.VR == "SQ":
        return len(element.value) > 0
    return element.value is not None and str(element.value).strip(" ^\0").upper() not in _BLANK


def _is_yes(dataset: Dataset) -> bool:
    return str(dataset.get("PatientIdentityRemoved", "")).strip().upper() == "YES"
