import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from cxr.errors import ImageError
from cxr.imaging.dicom_identity import Identity, read_identity

STORED = np.zeros((6, 4), dtype=np.uint16)
NONE = Identity((), (), (), (), False)


def test_a_bare_header_tells_nothing(write_dicom):
    assert read_identity(write_dicom(STORED)) == NONE


def test_filled_elements_are_named_in_the_order_of_the_lists(write_dicom):
    path = write_dicom(
        STORED,
        PatientBirthDate="19700101",
        PatientName="Doe^Jane",
        ReferringPhysicianName="Smith",
        InstitutionName="St. Mary",
        StudyDate="20200102",
        PatientIdentityRemoved="YES",
    )
    assert read_identity(path) == Identity(
        patient=("PatientName", "PatientBirthDate"),
        places_and_staff=("InstitutionName", "ReferringPhysicianName"),
        dates=("StudyDate",),
        private_groups=(),
        declared_removed=True,
    )


@pytest.mark.parametrize("name", ["", "^^^", "Anonymous", "ANONYMIZED^", "Removed"])
def test_emptied_names_count_as_blank(name, write_dicom):
    assert read_identity(write_dicom(STORED, PatientName=name, PatientIdentityRemoved="NO")) == NONE


def test_elements_inside_sequences_are_found(write_dicom):
    inner = Dataset()
    inner.AccessionNumber = "A1"
    assert read_identity(write_dicom(STORED, RequestAttributesSequence=[inner])).patient == ("AccessionNumber",)


def test_an_empty_sequence_is_blank(write_dicom):
    assert read_identity(write_dicom(STORED, OtherPatientIDsSequence=[])) == NONE


def test_private_groups_are_named_once_each(write_dicom):
    path = write_dicom(STORED)
    dataset = pydicom.dcmread(path)
    for group in (0x0029, 0x0009):
        block = dataset.private_block(group, "MAKER", create=True)
        block.add_new(1, "LO", "a")
        block.add_new(2, "LO", "b")
    dataset.save_as(path)
    assert read_identity(path).private_groups == ("0009", "0029")


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ImageError, match=r"none\.dcm: expected a DICOM file, but there is no such file"):
        read_identity(tmp_path / "none.dcm")
