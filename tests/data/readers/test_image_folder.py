import os

import pytest

from cxr.data.readers import make_image_folder_samples
from cxr.data.samples import make_samples
from cxr.errors import DataError


def write_files(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read by the reader")
    return root


def test_official_parts_and_a_class_name_with_a_space(tmp_path):
    root = write_files(
        tmp_path,
        "train/Viral Pneumonia/01.jpeg", "train/Covid/2.PNG", "train/Normal/3.jpg",
        "valid/Covid/4.tif", "Test/Normal/5.dcm", "test/Covid/6.bmp",
    )  # fmt: skip
    samples = make_image_folder_samples(root)
    table = samples.set_index("sample_id")
    assert table["finding"].to_dict() == {
        "Test/Normal/5": "Normal",
        "test/Covid/6": "Covid",
        "train/Covid/2": "Covid",
        "train/Normal/3": "Normal",
        "train/Viral Pneumonia/01": "Viral Pneumonia",
        "valid/Covid/4": "Covid",
    }
    assert table["split"].value_counts().to_dict() == {"train": 3, "test": 2, "val": 1}
    assert table.loc["train/Covid/2", "image_path"] == str(root / "train/Covid/2.PNG")
    assert make_samples(samples, None)[1] == ["Covid", "Normal", "Viral Pneumonia"]


@pytest.mark.parametrize("inner", ["", "images/"])
def test_class_folders_without_parts(tmp_path, inner):
    write_files(tmp_path, f"B/{inner}1.png", f"A/{inner}2.png", "A/masks/2.png")
    samples = make_image_folder_samples(tmp_path)
    assert samples["sample_id"].tolist() == [f"A/{inner}2", f"B/{inner}1"]
    assert "split" not in samples


def test_what_is_ignored_is_counted_and_hidden_files_are_not(tmp_path):
    write_files(
        tmp_path, "train/A/1.png", "train/A/._1.png", "train/A/notes.txt", "train/A/masks/1.png", "train/.x/1.png"
    )
    write_files(tmp_path, "train/B/2.png", "train/B/Thumbs.db", "__MACOSX/B/2.png")
    samples = make_image_folder_samples(tmp_path)
    assert samples["sample_id"].tolist() == ["train/A/1", "train/B/2"]
    assert samples.attrs["report"] == {"files without an image's extension": 2, "folders outside the layout": 2}


def test_files_that_differ_in_extension_alone_keep_it(tmp_path):
    write_files(tmp_path, "A/1.png", "A/1.jpg", "A/2.jpg", "B/1.png")
    assert make_image_folder_samples(tmp_path)["sample_id"].tolist() == ["A/1.jpg", "A/1.png", "A/2", "B/1"]


def test_the_order_is_that_of_the_paths_not_of_creation(tmp_path):
    names = ["B/3.png", "A/2.png", "B/1.png", "A/9.png"]
    first = make_image_folder_samples(write_files(tmp_path / "x", *names))["sample_id"].tolist()
    second = make_image_folder_samples(write_files(tmp_path / "y", *names[::-1]))["sample_id"].tolist()
    assert first == second == sorted(first)


def test_absent_folder(tmp_path):
    with pytest.raises(
        DataError,
        match="expected a folder of images at .*/nothing, laid out as <class>.* but .*data.root.*data=phantom",
    ):
        make_image_folder_samples(tmp_path / "nothing")


def test_folder_without_class_folders(tmp_path):
    write_files(tmp_path, "1.png")
    with pytest.raises(DataError, match="expected folders of images in .* but found none; point data.root at such"):
        make_image_folder_samples(tmp_path)


@pytest.mark.parametrize("name", ["A/Müller.png", "Süd/1.png"], ids=["file", "folder"])
def test_names_that_are_not_utf8(tmp_path, name):
    write_files(tmp_path, "A/1.png", "B/1.png")
    write_files(tmp_path, os.fsdecode(name.encode("latin-1")))
    with pytest.raises(
        DataError, match="file names in UTF-8, but 1 are not: .*(A/M\ufffdller|S\ufffdd/1).*; rename"
    ) as caught:
        make_image_folder_samples(tmp_path)
    assert str(caught.value).encode()


def test_empty_class_folder(tmp_path):
    write_files(tmp_path, "train/A/1.png", "train/B/readme.txt")
    with pytest.raises(DataError, match="expected images in every class folder of .*, but train/B has none"):
        make_image_folder_samples(tmp_path)
