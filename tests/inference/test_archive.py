import struct
import zipfile

import numpy as np
import pytest

from cxr.errors import DataError, ImageError
from cxr.inference import archive
from cxr.inference.archive import is_zip, list_members, read_member

NOISE = np.random.default_rng(0).bytes(5000)


def pack(path, method=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def test_members_are_listed_and_read(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.mkdir("folder")
        packed.writestr("folder/b.png", NOISE)
        packed.writestr("a.png", b"")
    assert is_zip(path)
    assert list_members(path) == ["folder/b.png", "a.png"]
    assert read_member(path, "folder/b.png") == NOISE
    assert read_member(path, "a.png") == b""


def test_what_is_no_zip_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert not is_zip(tmp_path / "a.png")
    assert not is_zip(tmp_path / "absent.zip")


def test_a_damaged_list(tmp_path):
    path = pack(tmp_path / "a.zip", a=NOISE)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"expected .*a.zip to be a zip file, got .*; copy it again"):
        list_members(path)


def test_a_damaged_member(tmp_path):
    path = pack(tmp_path / "a.zip", a=NOISE)
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(ImageError, match="expected an undamaged member of a zip file, got"):
        read_member(path, "a")


def test_a_bomb_is_refused_by_its_ratio(tmp_path):
    with pytest.raises(ImageError, match="shrinks by less than 200 times, got .* bytes that become 1000000"):
        read_member(pack(tmp_path / "a.zip", a=b"\0" * 1_000_000), "a")


def test_a_member_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 4999)
    with pytest.raises(ImageError, match="expected at most 4999 bytes in a member, got 5000"):
        read_member(pack(tmp_path / "a.zip", zipfile.ZIP_STORED, a=NOISE), "a")


def test_methods_without_a_bound(tmp_path):
    with pytest.raises(ImageError, match="expected a stored or deflated member, got method 14"):
        read_member(pack(tmp_path / "a.zip", zipfile.ZIP_LZMA, a=NOISE), "a")


def test_a_password(tmp_path):
    path = pack(tmp_path / "a.zip", a=NOISE)
    content = bytearray(path.read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(start) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match="expected a member without a password, got an encrypted one"):
        read_member(path, "a")


def test_a_member_that_lies_about_its_size_is_not_unpacked_further(tmp_path):
    path = pack(tmp_path / "a.zip", a=b"\0" * 1_000_000)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 2000)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="expected an undamaged member of a zip file, got Bad CRC-32"):
        read_member(path, "a")
