import errno
import io
import os
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr.errors import DataError, ImageError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.intake import take_in
from cxr.inference.sources import Source, find_sources, read_source, to_line


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder with images, a zip file, and files that are none."""
    monkeypatch.chdir(tmp_path)
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30).astype(np.uint8)
    for name in ("scans/b/2.png", "scans/1", "scans/a[1].png", "scans/.cache/9.png", "scans/.DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    for name in ("DICOMDIR", "notes.TXT", "b/answers.json", "b/old.zip"):
        (tmp_path / "scans" / name).write_bytes(b"PK\x05\x06" + b"\0" * 18)
    with zipfile.ZipFile("a.zip", "w") as packed:
        packed.write("scans/1", "in/1.png")
        for name in ("in/readme.md", "__MACOSX/._1.png", ".x/2.png"):
            packed.writestr(name, "x")
    return tmp_path


def find(*words, listed=""):
    found = find_sources(words, io.StringIO(listed))
    return [str(source) for source in found.sources], dict(found.skipped)


def test_a_folder_is_walked_by_name_and_skips_what_is_clearly_no_image(place):
    paths, skipped = find("scans")
    assert paths == ["scans/1", "scans/a[1].png", "scans/b/2.png"]
    assert skipped == {"hidden": 2, "DICOMDIR": 1, ".txt": 1, ".json": 1, ".zip": 1}


def test_a_linked_folder_is_counted_and_not_entered(place):
    (place / "scans" / "b" / "up").symlink_to(place / "scans")
    paths, skipped = find("scans")
    assert (len(paths), skipped["linked folder"]) == (3, 1)


def test_a_folder_that_cannot_be_read_is_told(place, monkeypatch):
    def refuse(path, scan=os.scandir):
        if str(path) == "scans/b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    *_, unread = find_sources(["scans"], io.StringIO()).sources
    assert str(unread) == "scans/b"
    with pytest.raises(ImageError, match="^expected a folder that can be read, got Permission denied; change who"):
        read_source(unread, (Preprocess(),))


def test_a_file_below_a_folder_that_may_not_be_entered(place, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    assert find("scans/1") == (["scans/1"], {})


def test_a_file_that_is_named_is_never_skipped(place):
    assert find("scans/notes.TXT.gone", "scans/.DS_Store") == (["scans/notes.TXT.gone", "scans/.DS_Store"], {})


def test_a_zip_file_is_a_folder(place):
    assert find("a.zip") == (["a.zip/in/1.png"], {".md": 1, "hidden": 2})


def test_a_member_without_a_name_is_read_as_any_other(place):
    with zipfile.ZipFile("dots.zip", "w") as packed:
        packed.write("scans/1", ".")
        packed.writestr("./.", "x")
    image, other = find_sources(["dots.zip"], io.StringIO()).sources
    assert (str(image), str(other)) == ("dots.zip/.", "dots.zip/./.")
    assert read_source(image, (Preprocess(size=(8, 8)),)).shape == (20, 30)
    with pytest.raises(ImageError, match="^expected a DICOM, PNG, JPEG, TIFF or BMP image"):
        read_source(other, (Preprocess(),))


def test_a_damaged_zip_file_costs_only_itself(place):
    (place / "bad.zip").write_bytes(b"PK\x03\x04x")
    good, bad = find_sources(["scans/1", "bad.zip"], io.StringIO()).sources
    assert (str(good), str(bad)) == ("scans/1", "bad.zip")
    with pytest.raises(ImageError, match=r"^expected bad.zip to be a zip file, got .*; copy it again$"):
        read_source(bad, (Preprocess(),))


def test_a_pattern_and_a_name_that_looks_like_one(place):
    assert find("scans/**/*.png")[0] == ["scans/a[1].png", "scans/b/2.png"]
    assert find("scans/a[1].png")[0] == ["scans/a[1].png"]
    assert find("*.zip")[0] == ["a.zip/in/1.png"]
    assert find("sc*")[0] == find("scans")[0]


def test_a_pattern_without_files(place):
    with pytest.raises(DataError, match=r"expected files that match none/\*, found none"):
        find("none/*")


def test_a_list_names_anything_but_patterns(place):
    assert find("-", listed="scans/b\r\n\na.zip\nscans/*\n")[0] == ["scans/b/2.png", "a.zip/in/1.png", "scans/*"]


def test_a_list_may_begin_with_a_byte_order_mark(place):
    assert find("-", listed="\ufeffscans/1\n")[0] == ["scans/1"]


def test_a_name_with_a_null_byte_is_found_out_when_it_is_read(place):
    assert find("-", listed="a\0b\nscans/1\n")[0] == ["a\\x00b", "scans/1"]


def test_an_image_that_is_named_twice_is_there_once(place):
    assert find("scans/1", "scans", "scans/1")[0] == find("scans")[0]


def test_zip_files_need_memory_files(place, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(DataError, match="expected Linux, where members of a.zip are read in memory"):
        find("a.zip")


def test_a_member_gives_what_its_file_gives(place):
    preprocess = Preprocess(size=(8, 8))
    of_file, of_member = (
        read_source(source, (preprocess,)) for source in (Source("scans/1"), Source("a.zip", "in/1.png"))
    )
    np.testing.assert_array_equal(of_file.stored[0], of_member.stored[0])
    np.testing.assert_array_equal(of_file.stored[0], take_in("scans/1", (preprocess,)).stored[0])


def test_a_member_that_is_no_image(place):
    with pytest.raises(ImageError, match="^expected a DICOM, PNG, JPEG, TIFF or BMP image"):
        read_source(Source("a.zip", "in/readme.md"), (Preprocess(),))


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_a_path_is_called_it_is_one_line_of_unicode(text):
    line = to_line(text)
    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line
    line.encode("utf-8")


@given(st.text("x\n\\", max_size=6), st.text("xn\n\\", max_size=6))
def test_two_names_are_never_told_alike(one, other):
    assert (to_line(one) == to_line(other)) == (one == other)
