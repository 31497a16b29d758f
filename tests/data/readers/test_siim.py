import os

import pandas as pd
import pytest

from cxr.data.phantoms.tree import read_truth
from cxr.data.readers import make_phantom_samples, make_siim_samples
from cxr.data.samples import make_samples
from cxr.errors import ConfigError, DataError

FINDINGS = ["Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"]
MARKS = {"negative": (1, 0, 0, 0), "typical": (0, 1, 0, 0), "none": (0, 0, 0, 0), "two": (0, 1, 1, 0)}


def write_dataset(root, rows, files):
    """`rows`: id -> key of MARKS; `files`: paths under train."""
    root.mkdir(exist_ok=True)
    table = [{"id": name, **dict(zip(FINDINGS, MARKS[marks], strict=True))} for name, marks in rows]
    pd.DataFrame(table, columns=["id", *FINDINGS]).to_csv(root / "train_study_level.csv", index=False)
    for name in files:
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read by the reader")
    return root


@pytest.fixture
def broken(tmp_path):
    rows = [
        ("good_study", "negative"),
        ("pair_study", "typical"),
        ("absent_study", "typical"),
        ("blank_study", "none"),
        ("torn_study", "two"),
        ("twice_study", "negative"),
        ("twice_study", "typical"),
        ("image_of_nothing", "typical"),
    ]
    files = [f"{study}/s/i.dcm" for study in ("good", "blank", "torn", "twice", "stranger")]
    return write_dataset(tmp_path / "siim", rows, [*files, "pair/s1/1.2.840.1.dcm", "pair/s2/b.DCM"])


def test_one_row_per_image(tmp_path):
    root = write_dataset(
        tmp_path / "siim",
        [("b_study", "typical"), ("a_study", "negative")],
        ["b/s1/1.2.840.1.dcm", "b/s2/y.DCM", "a/s/x.dcm", "a/s/notes.txt", "a/s/.hidden.dcm", ".trash/s/x.dcm"],
    )
    samples = make_siim_samples(root)
    assert samples["sample_id"].tolist() == ["a/s/x", "b/s1/1.2.840.1", "b/s2/y"]
    assert samples["study_id"].tolist() == ["a", "b", "b"]
    assert samples["finding"].tolist() == [FINDINGS[0], FINDINGS[1], FINDINGS[1]]
    assert samples["image_path"].tolist() == [
        str(root / "train" / name) for name in ("a/s/x.dcm", "b/s1/1.2.840.1.dcm", "b/s2/y.DCM")
    ]
    assert samples.attrs["report"] == {}


@pytest.mark.parametrize(
    ("classes", "counts"),
    [
        ({FINDINGS[0]: "negative", **dict.fromkeys(FINDINGS[1:], "positive")}, {"negative": 1, "positive": 3}),
        (dict(zip(FINDINGS, "ntia", strict=True)), {"n": 1, "t": 1, "i": 1, "a": 1}),
    ],
    ids=["binary", "four classes"],
)
def test_binary_and_four_classes_are_one_mapping(tmp_path, classes, counts):
    write_dataset(tmp_path, [], [f"{study}/s/i.dcm" for study in "0123"])
    table = pd.DataFrame({"id": [f"{study}_study" for study in "0123"]})
    for index, finding in enumerate(FINDINGS):
        table[finding] = (table.index == index).astype(int)
    table.to_csv(tmp_path / "train_study_level.csv", index=False)
    samples, class_names = make_samples(make_siim_samples(tmp_path), classes)
    assert {name: int((samples["label"] == label).sum()) for label, name in enumerate(class_names)} == counts
    assert class_names == list(counts)


def test_every_disagreement_is_in_one_report(broken):
    with pytest.raises(DataError) as caught:
        make_siim_samples(broken)
    for problem in (
        "1 ids that do not end in _study (image_of_nothing)",
        "1 studies listed more than once (twice)",
        "1 rows without a finding (blank_study)",
        "1 rows with several findings (torn_study)",
        "1 studies without DICOM files (absent)",
        "1 study folders not in the CSV (stranger)",
        "data.on_missing=skip",
    ):
        assert problem in str(caught.value)


def test_skip_keeps_the_sound_studies_and_counts_the_rest(broken, caplog):
    samples = make_siim_samples(broken, on_missing="skip")
    assert samples["study_id"].tolist() == ["good", "pair", "pair"]
    assert samples.attrs["report"] == {
        "ids that do not end in _study": 1,
        "studies listed more than once": 1,
        "rows without a finding": 1,
        "rows with several findings": 1,
        "studies without DICOM files": 1,
        "study folders not in the CSV": 1,
    }
    assert "studies without DICOM files" in caplog.text
    assert "absent" not in "".join(record.getMessage() for record in caplog.records if record.levelname != "DEBUG")


@pytest.mark.parametrize("missing", ["root", "csv", "train"])
def test_absent_data_say_what_to_download_and_what_to_do_without(tmp_path, missing):
    root = tmp_path / "siim"
    if missing != "root":
        write_dataset(root, [("a_study", "typical")], ["a/s/i.dcm"])
    if missing == "csv":
        (root / "train_study_level.csv").unlink()
    if missing == "train":
        (root / "train" / "a" / "s" / "i.dcm").unlink()
    with pytest.raises(
        DataError, match="expected .*siim.*but.*siim-covid19-detection.*python scripts/download_data.py"
    ) as caught:
        make_siim_samples(root)
    assert "python train.py experiment=template data=phantom net=custom_cnn" in str(caught.value)


def test_a_name_that_is_not_utf8(tmp_path):
    write_dataset(tmp_path, [("a_study", "typical")], [os.fsdecode("a/s/Müller.dcm".encode("latin-1"))])
    with pytest.raises(DataError, match="file names in UTF-8, but 1 are not: .*/a/s/M\ufffdller.dcm; rename"):
        make_siim_samples(tmp_path)


def test_table_without_the_official_columns(tmp_path):
    write_dataset(tmp_path, [], ["a/s/i.dcm"])
    (tmp_path / "train_study_level.csv").write_text("id,Typical Appearance\na_study,1\n")
    with pytest.raises(
        DataError, match="but Negative for Pneumonia, Indeterminate Appearance, Atypical Appearance is missing"
    ):
        make_siim_samples(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01"], ids=["empty", "binary"])
def test_unreadable_table(tmp_path, content):
    write_dataset(tmp_path, [], ["a/s/i.dcm"])
    (tmp_path / "train_study_level.csv").write_bytes(content)
    with pytest.raises(DataError, match="expected a table of studies .* cannot be read: .*download it again"):
        make_siim_samples(tmp_path)


def test_unknown_policy(tmp_path):
    with pytest.raises(ConfigError, match="expected on_missing to be 'error' or 'skip', but got 'ignore'"):
        make_siim_samples(tmp_path, on_missing="ignore")


BOXES = "opacity 1 10 20.5 30 60 opacity 0.9 1e1 2 3e1 4.25"


def write_boxes(root, *rows):
    pd.DataFrame(rows, columns=["id", "label"]).to_csv(root / "train_image_level.csv", index=False)


def test_boxes_are_read_in_pixels_of_the_file(tmp_path):
    root = write_dataset(tmp_path / "siim", [("a_study", "typical")], [f"a/s/{name}.dcm" for name in ("1.2", "2", "3")])
    write_boxes(root, ("1.2_image", BOXES), ("2_image", "none 1 0 0 1 1"), ("elsewhere_image", "none 1 0 0 1 1"))
    boxes = make_samples(make_siim_samples(root), None)[0].set_index("sample_id")["boxes"]
    assert boxes["a/s/1.2"] == ((10.0, 20.5, 20.0, 39.5), (10.0, 2.0, 20.0, 2.25))
    assert boxes["a/s/2"] == ()
    assert boxes["a/s/3"] is None


@pytest.mark.parametrize("label", ["", "opacity 1 10 20 30", "opacity 1 30 20 10 60", "opacity 1 1 2 3 4 x", "none"])
def test_a_label_of_no_box_is_refused(tmp_path, label):
    root = write_dataset(tmp_path / "siim", [("a_study", "typical")], ["a/s/1.dcm"])
    write_boxes(root, ("1_image", label))
    with pytest.raises(DataError, match=r"expected labels such as .* but 1 images have others: 1; download it again"):
        make_siim_samples(root)


def test_a_table_without_labels_is_refused(tmp_path):
    root = write_dataset(tmp_path / "siim", [("a_study", "typical")], ["a/s/1.dcm"])
    (root / "train_image_level.csv").write_text("id,boxes\n1_image,\n")
    with pytest.raises(DataError, match="expected a table of boxes with the columns id and label in .*level.csv"):
        make_siim_samples(root)


def test_the_boxes_of_phantoms_are_read(lab, tmp_path):
    cohort = {"studies": 6, "size": 64, "seed": 1, "prevalence": [0, 1, 0, 0], "invisible": 0.0, "faint": 0.0}
    samples = make_phantom_samples(tmp_path / "phantom", cohort=cohort)
    truth = read_truth(tmp_path / "phantom").set_index("image_path")["boxes"]
    assert samples["boxes"].map(len).tolist() == truth[samples["image_path"]].tolist()
    assert samples["boxes"].map(len).sum() > 0
