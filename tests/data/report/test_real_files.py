"""Public DICOM files of several makers: what is no chest radiograph and what gives no image is named."""

import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[4] / "shared" / "datasets" / "dicom"

pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the public DICOM files are not in ../shared/datasets/dicom"),
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning"),
    pytest.mark.filterwarnings("ignore:the test part has"),
]

ELSEWHERE = {
    "udacity_test5_notchest": "Modality CT",
    "CR-ModalityLUTSequence_teeth_MONO1": "SeriesDescription names TEETH",
    "WG04_RG3_tibia_J2KR": "BodyPartExamined EXTREMITY",
    "WG04_RG3_tibia_JLSL": "BodyPartExamined EXTREMITY",
    "WG04_RG3_tibia_JPLL": "BodyPartExamined EXTREMITY",
    "WG04_RG3_tibia_JPLY": "BodyPartExamined EXTREMITY",
}


@pytest.mark.slow
def test_what_is_no_chest_radiograph_and_what_gives_no_image_is_named(tmp_path, report_on):
    for path in FOLDER.glob("*.dcm"):
        place = tmp_path / "dicom" / ("chest" if path.stem not in ELSEWHERE else "other") / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    report, _ = report_on(tmp_path / "dicom")
    found = {
        finding["key"]: {Path(f["path"]).stem: f["detail"] for f in finding["files"]} for finding in report["findings"]
    }
    assert found["not_a_chest"] == ELSEWHERE
    assert set(found["no_image"]) == {"CR_chest_PA_32px_agfa"}
    assert "no pixel data (modality CR)" in found["no_image"]["CR_chest_PA_32px_agfa"]
    assert set(found["private"]) == {"CR-ModalityLUTSequence_teeth_MONO1", "CR_chest_PA_32px_agfa"}
    assert "inverted" not in found
