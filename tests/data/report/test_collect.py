import json

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage

pytestmark = [
    pytest.mark.filterwarnings("ignore:the test part has"),
    pytest.mark.filterwarnings("ignore:.*frames; only the first"),
]


def findings_of(report):
    return {finding["key"]: finding for finding in report["findings"]}


def test_a_sound_dataset_has_no_findings_and_every_file_counts_once(root, report_on):
    report, thumbnails = report_on(root)
    assert report["findings"] == []
    assert report["files"] == report["dicom_files"] == 20
    assert list(report["images"]) == ["train", "val", "test"]
    assert sum(count for classes in report["images"].values() for count in classes.values()) == 20
    assert report["patients"]["all files"] == 20
    assert sum(report["patients"][part] for part in ("train", "val", "test")) == 20
    assert {name: len(images) for name, images in thumbnails.items()} == {"ill": 10, "well": 10}
    assert report["missing_tags"] == [{"tag": tag, "count": 20, "files": paths} for tag, paths in absent(report)]
    assert json.loads(json.dumps(report)) == report


def absent(report):
    return [(missing["tag"], missing["files"]) for missing in report["missing_tags"] if "Date" in missing["tag"]]


def text_on(pixels):
    return cv2.putText(pixels.copy(), "DOE JOHN 1970", (20, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 255, 1)


PLANTED = {
    "modality": ("not_a_chest", {"Modality": "CT"}, "Modality CT"),
    "sop class": ("not_a_chest", {"SOPClassUID": CTImageStorage}, "SOP Class CT Image Storage"),
    "body part": ("not_a_chest", {"BodyPartExamined": "EXTREMITY"}, "BodyPartExamined EXTREMITY"),
    "description": ("not_a_chest", {"SeriesDescription": "Left Tibia"}, "SeriesDescription names TIBIA"),
    "lateral": ("not_frontal", {"ViewPosition": "LL"}, "ViewPosition LL"),
    "lateral by description": (
        "not_frontal",
        {"ViewPosition": "", "SeriesDescription": "Chest LAT"},
        "SeriesDescription Chest LAT",
    ),
    "burned in": ("burned_in", {"BurnedInAnnotation": "YES"}, "BurnedInAnnotation YES"),
    "name": ("patient", {"PatientName": "Doe^Jane"}, "PatientName"),
    "birth date": ("patient", {"PatientBirthDate": "19700101"}, "PatientBirthDate"),
    "address and number": (
        "patient",
        {"PatientAddress": "1 Main St", "AccessionNumber": "A1"},
        "PatientAddress, AccessionNumber",
    ),
    "institution": ("places_and_staff", {"InstitutionName": "St. Mary"}, "InstitutionName"),
    "date": ("dates", {"StudyDate": "20200102"}, "StudyDate"),
    "frames": ("several_frames", {"NumberOfFrames": 2, "PixelData": bytes(range(256)) * 392}, "2 frames"),
}


@pytest.mark.parametrize(("key", "elements", "detail"), PLANTED.values(), ids=PLANTED)
def test_what_a_header_says_is_found_in_its_file_alone(key, elements, detail, root, report_on, make_file, save_file):
    path = root / "ill" / "03.dcm"
    save_file(path, make_file(3, **elements))
    report, _ = report_on(root)
    found = findings_of(report)
    assert list(found) == [key]
    (file,) = found[key]["files"]
    assert found[key]["count"] == 1
    assert (file["path"], file["detail"]) == (str(path), detail)
    assert file["fate"] in ("train", "val", "test")


SOUND = {
    "chest by description": {"SeriesDescription": "CHEST PA, HANDS UP"},
    "thorax": {"BodyPartExamined": "THORAX"},
    "unknown object": {"SOPClassUID": "1.2.3.4.5"},
    "no annotation": {"BurnedInAnnotation": "NO"},
    "emptied name": {"PatientName": "Anonymous^^", "PatientBirthDate": ""},
}


@pytest.mark.parametrize("elements", SOUND.values(), ids=SOUND)
def test_sound_headers_are_left_alone(elements, root, report_on, make_file, save_file):
    save_file(root / "ill" / "03.dcm", make_file(3, **elements))
    assert report_on(root)[0]["findings"] == []


SEEN = {
    "inverted": ("inverted", lambda pixels: 255 - pixels),
    "constant": ("constant", np.zeros_like),
    "written on": ("text", text_on),
    "narrow": ("odd_size", lambda pixels: np.ascontiguousarray(np.tile(pixels, (1, 3)))),
    "small": ("odd_size", lambda pixels: cv2.resize(pixels, (40, 40), interpolation=cv2.INTER_AREA)),
}


@pytest.mark.parametrize(("key", "change"), SEEN.values(), ids=SEEN)
def test_what_pixels_show_is_found_in_its_file_alone(key, change, root, report_on, make_file, save_file, chest):
    path = root / "well" / "13.dcm"
    save_file(path, make_file(13, pixels=change(chest(13))))
    found = findings_of(report_on(root)[0])
    assert key in found
    assert [file["path"] for file in found[key]["files"]] == [str(path)]


def test_hardly_any_contrast_is_found(root, report_on, make_file, save_file, chest):
    flat = np.full_like(chest(0), 100)
    flat[0, 0], flat[0, 1] = 0, 255
    save_file(root / "well" / "13.dcm", make_file(13, pixels=flat))
    assert findings_of(report_on(root)[0])["low_contrast"]["count"] == 1


def test_private_elements_are_found_by_group(root, report_on, make_file, save_file):
    file = make_file(3)
    file.private_block(0x0029, "MAKER", create=True).add_new(0x01, "LO", "Jane Doe")
    save_file(root / "ill" / "03.dcm", file)
    report, _ = report_on(root)
    assert [file["detail"] for file in findings_of(report)["private"]["files"]] == ["0029"]
    assert "Jane Doe" not in json.dumps(report), "what elements hold stays in the files"


def test_files_without_an_image_are_named_and_counted_as_left_out(root, report_on, make_file, save_file):
    bare = make_file(3)
    del bare.PixelData
    save_file(root / "ill" / "03.dcm", bare)
    (root / "well" / "12.dcm").write_bytes(b"no image at all")
    report, thumbnails = report_on(root)
    found = findings_of(report)["no_image"]["files"]
    assert [file["path"] for file in found] == [str(root / "ill" / "03.dcm"), str(root / "well" / "12.dcm")]
    assert found[0]["detail"].startswith("expected a DICOM image, but the file has no pixel data")
    assert report["images"]["gives no image"] == {"ill": 1, "well": 1}
    assert sum(sum(classes.values()) for classes in report["images"].values()) == 20
    assert [len(images) for images in thumbnails.values()] == [9, 9]


def test_what_the_view_filter_drops_is_counted_with_its_reason(root, report_on, make_file, save_file):
    save_file(root / "ill" / "03.dcm", make_file(3, ViewPosition="LL"))
    report, _ = report_on(root, view_filter="frontal")
    assert report["images"]["view filter: not a frontal view"] == {"ill": 1, "well": 0}
    assert findings_of(report)["not_frontal"]["files"][0]["fate"] == "view filter: not a frontal view"
    assert sum(sum(classes.values()) for classes in report["images"].values()) == 20


def test_a_limit_is_a_reason_too(root, report_on):
    report, _ = report_on(root, limit=12)
    (reason,) = set(report["images"]) - {"train", "val", "test"}
    assert reason.startswith("not in the split: data.limit")
    assert sum(report["images"][reason].values()) == 8


def test_missing_elements_are_listed_with_their_files(root, report_on, make_file, save_file):
    save_file(root / "ill" / "03.dcm", make_file(3, ViewPosition="", PatientSex=""))
    missing = {entry["tag"]: entry for entry in report_on(root)[0]["missing_tags"]}
    for tag in ("ViewPosition", "PatientSex"):
        assert missing[tag]["count"] == 1
        assert missing[tag]["files"] == [str(root / "ill" / "03.dcm")]
    assert "Modality" not in missing


def test_data_that_cannot_be_split_are_reported_all_the_same(root, report_on):
    for path in sorted((root / "ill").iterdir())[1:]:
        path.unlink()
    report, _ = report_on(root)
    assert "expected samples of every class in the part" in report["split_problem"]
    assert report["cohort"] is None
    assert report["images"]["no split could be made"] == {"ill": 1, "well": 10}
    assert sum(report["grey_levels"]["well"]) == 10 * 224 * 224


def test_attributes_count_every_file_in_its_class(root, report_on, make_file, save_file):
    for number in range(10):
        save_file(root / "ill" / f"{number:02d}.dcm", make_file(number, Manufacturer="Other", PatientSex=""))
    attributes = {entry["key"]: entry["values"] for entry in report_on(root)[0]["attributes"]}
    makers = {entry["value"]: entry["classes"] for entry in attributes["manufacturer"]}
    assert makers == {"Maker": {"ill": 0, "well": 10}, "Other": {"ill": 10, "well": 0}}
    assert {entry["value"]: entry["classes"]["ill"] for entry in attributes["sex"]} == {"F": 0, "not stated": 10}
    assert attributes["transfer_syntax"][0]["value"] == "Explicit VR Little Endian"
    assert attributes["size"] == [{"value": "224 x 224", "classes": {"ill": 10, "well": 10}}]


def test_rare_values_stand_together(root, report_on, make_file, save_file):
    for number in range(20):
        folder = root / ("ill" if number < 10 else "well")
        save_file(folder / f"{number:02d}.dcm", make_file(number, Manufacturer=f"Maker {number:02d}"))
    attributes = {entry["key"]: entry["values"] for entry in report_on(root)[0]["attributes"]}
    assert len(attributes["manufacturer"]) == 13
    assert attributes["manufacturer"][-1]["value"] == "all others"
    assert sum(sum(entry["classes"].values()) for entry in attributes["manufacturer"]) == 20


def test_ages_fall_into_their_bins(root, report_on):
    ages = report_on(root)[0]["ages"]
    assert ages["counts"]["ill"][4:6] == [5, 5], "20 to 29 years"
    assert ages["counts"]["well"][6:8] == [5, 5], "30 to 39 years"
    assert ages["median"] == {"ill": 24.5, "well": 34.5}
    assert ages["files_without"] == 0


def test_plain_images_have_sizes_and_no_dicom_section(tmp_path, report_on, chest):
    for number in range(20):
        path = tmp_path / "png" / ("a" if number < 10 else "b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chest(number)).save(path)
    report, _ = report_on(tmp_path / "png")
    assert report["findings"] == report["missing_tags"] == []
    assert (report["dicom_files"], report["ages"]) == (0, None)
    assert [entry["key"] for entry in report["attributes"]] == ["file_type", "size"]
