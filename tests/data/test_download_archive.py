import stat
import zipfile
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.data.download import archive as archive_module
from cxr.data.download.archive import extract_archive, format_size, free_bytes, require_space
from cxr.errors import DataError

MANY = 10**9
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def zip_path(tmp_path):
    return tmp_path / "some.zip"


def write_zip(path: Path, members: dict[str, bytes] | list[tuple[zipfile.ZipInfo, bytes]]) -> Path:
    pairs = members.items() if isinstance(members, dict) else members
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in pairs:
            target.writestr(name, content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_content_is_unpacked(tmp_path, zip_path):
    files = {"a.csv": b"1", "train/a b/ü.png": b"2" * 3000}
    extract_archive(write_zip(zip_path, {**files, "empty/": b""}), tmp_path / "out", MANY)
    assert contents(tmp_path / "out") == files


def test_root_is_taken_off_and_repetitions_left_out(tmp_path, zip_path):
    members = {
        "top/a": b"1",
        "top/top/a": b"1",
        "__MACOSX/top/._a": b"",
        "top/.DS_Store": b"",
        "top/b/._c": b"",
        "z": b"3",
    }
    extract_archive(write_zip(zip_path, members), tmp_path / "out", MANY, root="top/", skip=("top/",))
    assert contents(tmp_path / "out") == {"a": b"1", "z": b"3"}


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "..\\evil",
        "C:\\evil",
        "c:evil",
        "\\\\server\\share\\evil",
        "top/../../evil",
    ],
)
def test_no_path_leaves_the_target(tmp_path, zip_path, name):
    write_zip(zip_path, {"good": b"1", name: b"evil"})
    with pytest.raises(DataError, match=r"not safe to unpack: .*evil' points outside the target folder; delete it"):
        extract_archive(zip_path, tmp_path / "out", MANY, root="top/")
    assert list(tmp_path.rglob("*")) == [zip_path]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["../", "..\\", "./", "/", "a/", "a\\", "C:", "~", "..", "b"]), min_size=1, max_size=6))
def test_whatever_its_name_a_file_lands_in_the_target_or_nothing_is_written(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("zip")
    target = folder / "deeper" / "than" / "a" / "name" / "of" / "six" / "parts" / "climbs"
    path = write_zip(folder / "in.zip", {"".join(parts): b"1"})
    with suppress(DataError, OSError):
        extract_archive(path, target, MANY)
    outside = [found for found in folder.rglob("*") if found.is_file() and target not in found.parents]
    assert outside == [path]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path, zip_path, kind):
    info = zipfile.ZipInfo("trap")
    info.external_attr = (kind | 0o644) << 16
    with pytest.raises(DataError, match="'trap' is a link or a device"):
        extract_archive(write_zip(zip_path, [(info, b"/etc/passwd")]), tmp_path / "out", MANY)


def test_a_file_without_a_name_is_refused(tmp_path, zip_path):
    with pytest.raises(DataError, match=r"is damaged \('.' is no file name\)"):
        extract_archive(write_zip(zip_path, {".": b"1"}), tmp_path / "out", MANY)


def test_encrypted_members_are_refused(tmp_path, zip_path):
    raw = bytearray(write_zip(zip_path, {"locked": b"1"}).read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    zip_path.write_bytes(raw)
    with pytest.raises(DataError, match="'locked' is encrypted"):
        extract_archive(zip_path, tmp_path / "out", MANY)


def test_more_content_than_announced_is_refused_before_writing(tmp_path, zip_path):
    write_zip(zip_path, {"a": b"x" * 600, "b": b"y" * 600})
    with pytest.raises(DataError, match=r"it would unpack to 0.0 MiB, expected at most 0.0 MiB"):
        extract_archive(zip_path, tmp_path / "out", 1199)
    assert not (tmp_path / "out").exists()
    extract_archive(zip_path, tmp_path / "out", 1200)


def test_bomb_is_refused_by_its_ratio(tmp_path, zip_path):
    write_zip(zip_path, {"zeros": bytes(10**6)})
    with pytest.raises(DataError, match=r"it would grow \d{3} times when unpacked, expected at most 200 times"):
        extract_archive(zip_path, tmp_path / "out", MANY)
    assert not (tmp_path / "out").exists()


def test_too_many_files_are_refused(tmp_path, zip_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_FILES", 2)
    with pytest.raises(DataError, match="it holds 3 files, expected at most 2"):
        extract_archive(write_zip(zip_path, {"a": b"", "b": b"", "c": b""}), tmp_path / "out", MANY)


def test_content_that_does_not_fit_is_refused_before_writing(tmp_path, zip_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(100, 1, 99))
    with pytest.raises(
        DataError, match=r"needs 0.0 MiB more, but 0.0 MiB are free; make room, or choose a folder on an"
    ):
        extract_archive(write_zip(zip_path, {"a": b"x" * 100}), tmp_path / "out", MANY)
    assert not (tmp_path / "out").exists()


def test_member_that_lies_about_its_length(tmp_path, zip_path):
    """Overlong data ends at the declared length and fails its checksum; the disk gets no more than was declared."""
    raw = bytearray(write_zip(zip_path, {"liar": b"x" * 5000}).read_bytes())
    entry = raw.index(b"PK\x01\x02")
    raw[22:26] = raw[entry + 24 : entry + 28] = (100).to_bytes(4, "little")
    zip_path.write_bytes(raw)
    with pytest.raises(DataError, match="is damaged"):
        extract_archive(zip_path, tmp_path / "out", 100)
    assert (tmp_path / "out" / "liar").stat().st_size <= 100


def test_member_that_is_shorter_than_announced(tmp_path, zip_path):
    raw = bytearray(write_zip(zip_path, {"short": b"x" * 50}).read_bytes())
    entry = raw.index(b"PK\x01\x02")
    raw[22:26] = raw[entry + 24 : entry + 28] = (60).to_bytes(4, "little")
    zip_path.write_bytes(raw)
    with pytest.raises(DataError, match="is damaged"):
        extract_archive(zip_path, tmp_path / "out", MANY)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b")])
def test_one_place_for_two_files_is_refused(tmp_path, zip_path, names):
    members = [(zipfile.ZipInfo(name), b"1") for name in names]
    with pytest.raises(DataError, match=r"is damaged \('a.*' is in it twice\)"):
        extract_archive(write_zip(zip_path, members), tmp_path / "out", MANY)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda raw: b"",
        lambda raw: b"<html>not a zip</html>",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:40] + bytes([raw[40] ^ 255]) + raw[41:],
        lambda raw: raw[:-30] + bytes(8) + raw[-22:],
    ],
    ids=["empty", "html", "cut", "flipped", "no directory"],
)
def test_damage_is_one_sentence(tmp_path, zip_path, break_it):
    raw = write_zip(zip_path, {"a": bytes(range(256)) * 20}).read_bytes()
    zip_path.write_bytes(break_it(raw))
    with pytest.raises(DataError, match=r"some.zip is damaged \(.*\); delete it and repeat the command"):
        extract_archive(zip_path, tmp_path / "out", MANY)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_flipped_byte_passes_unseen(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("zip")
    files = {"a": bytes(range(256)), "b/c": b"text"}
    raw = bytearray(write_zip(folder / "in.zip", files).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "in.zip").write_bytes(raw)
    try:
        extract_archive(folder / "in.zip", folder / "out", MANY)
    except (DataError, OSError):
        return
    assert sorted(contents(folder / "out").values()) == sorted(files.values())


def test_a_flipped_length_that_hides_a_file_is_seen(tmp_path, zip_path):
    raw = bytearray(write_zip(zip_path, {"a": b"1", "b": b"2"}).read_bytes())
    raw[raw.index(b"PK\1\2") + 32] = 47  # the length of the comment of the first file: the whole record of the second
    zip_path.write_bytes(raw)
    with pytest.raises(DataError, match="it announces 2 files and lists 1"):
        extract_archive(zip_path, tmp_path / "out", MANY)


def test_free_bytes_of_a_folder_to_be(tmp_path):
    assert free_bytes(tmp_path / "not" / "yet") > 0
    require_space(tmp_path / "not" / "yet", 1)


def test_sizes_for_people():
    assert format_size(3 * 2**30) == "3.0 GiB"
    assert format_size(2**20 // 2) == "0.5 MiB"


def test_progress_is_shown_on_stderr(tmp_path, zip_path, capsys):
    extract_archive(write_zip(zip_path, {"a": b"1" * 5000}), tmp_path / "out", MANY)
    shown = capsys.readouterr()
    assert "unpack" in shown.err
    assert shown.out == ""
