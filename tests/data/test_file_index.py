import hashlib
import multiprocessing
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from cxr.data import file_index
from cxr.data.file_index import FileIndex
from cxr.errors import DataError


def write_dicom(path: Path) -> Path:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    header.SOPInstanceUID = generate_uid()
    header.PatientID, header.ViewPosition, header.PatientAge, header.Modality = "P7", "PA", "064Y", "DX"
    header.Rows = header.Columns = 4
    header.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def files(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "text.png").write_bytes(b"no image, but bytes")
    (tmp_path / "torn.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI")
    return [
        str(write_dicom(tmp_path / "x.dcm")),
        *(str(tmp_path / name) for name in ("a.png", "text.png", "torn.dcm", "no.dcm")),
    ]


@pytest.fixture
def index(tmp_path):
    return FileIndex(tmp_path / "cache" / "files.sqlite")


@pytest.fixture
def reads(monkeypatch):
    """Every path whose bytes are read."""
    seen = []
    read_file = file_index._read_file
    monkeypatch.setattr(file_index, "_read_file", lambda path: seen.append(path) or read_file(path))
    return seen


def test_of_several_that_ask_at_once_one_reads(files, index, reads, monkeypatch):
    spied = file_index._read_file
    monkeypatch.setattr(file_index, "_read_file", lambda path: time.sleep(0.05) or spied(path))
    with ThreadPoolExecutor(2) as pool:
        tables = list(pool.map(FileIndex.describe, [index, FileIndex(index._db_path)], [files, files]))
    assert sorted(reads) == sorted(files[:-1])
    assert tables[0].equals(tables[1])


def test_hash_header_and_error_of_each_file(files, index):
    table = index.describe(files)
    assert table["image_path"].tolist() == files
    expected = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files[:-1]]
    assert table["content_hash"].tolist() == [*expected, None]
    assert table.loc[0, ["patient_id", "view_position", "age", "modality", "rows"]].tolist() == [
        "P7",
        "PA",
        64.0,
        "DX",
        4,
    ]
    assert table.loc[1:, "patient_id"].isna().all()
    assert table["error"].isna().tolist() == [True, True, True, False, False]
    assert "torn.dcm" in table.loc[3, "error"]
    assert "expected a readable file, but got: No such file" in table.loc[4, "error"]


def test_what_is_no_regular_file_is_not_opened(tmp_path, index):
    os.mkfifo(tmp_path / "pipe.dcm")
    (tmp_path / "loop.dcm").symlink_to(tmp_path / "loop.dcm")
    table = index.describe([str(tmp_path / name) for name in ("pipe.dcm", "loop.dcm", "")])
    assert table["content_hash"].isna().all()
    for error, reason in zip(table["error"], ("it is a pipe", "Too many levels", "it is a folder"), strict=True):
        assert reason in error


def test_a_path_with_a_null_byte_is_one_bad_file(files, index):
    table = index.describe(["/films/a\0b.png", files[1]])
    assert table.loc[0, "error"].startswith(
        "/films/a\0b.png: expected the path of a file, but it holds a null byte; write"
    )
    assert table.loc[1, "error"] is None


def test_known_files_are_not_read_again(files, index, reads):
    first = index.describe(files)
    assert sorted(reads) == sorted(files[:-1])
    reads.clear()
    second = index.describe(files[::-1])
    assert reads == []
    assert second[::-1].reset_index(drop=True).equals(first)


def test_changed_file_is_read_again(files, index, reads):
    before = index.describe(files)
    Path(files[1]).write_bytes(b"longer than before, so size and time differ" * 9)
    reads.clear()
    after = index.describe(files)
    assert reads == [files[1]]
    assert (after["content_hash"] != before["content_hash"]).tolist()[:4] == [False, True, False, False]


def test_same_size_and_another_time_is_read_again(files, index, reads):
    index.describe(files)
    os.utime(files[2], ns=(1, 1))
    reads.clear()
    index.describe(files)
    assert reads == [files[2]]


def test_repeated_paths_and_none_at_all(files, index):
    assert index.describe([files[0], files[0]])["content_hash"].nunique() == 1
    assert index.describe([]).empty


def test_killed_in_the_middle_keeps_whole_batches(tmp_path, index, reads, monkeypatch):
    monkeypatch.setattr(file_index, "_BATCH", 2)
    paths = [str(tmp_path / f"{number}.png") for number in range(6)]
    for number, path in enumerate(paths):
        Path(path).write_bytes(bytes([number]))
    remember, calls = file_index._remember, []

    def remember_one_batch(connection, batch):
        if calls:
            os._exit(9)
        calls.append(remember(connection, batch))

    monkeypatch.setattr(file_index, "_remember", remember_one_batch)
    process = multiprocessing.get_context("fork").Process(target=index.describe, args=(paths,))
    process.start()
    process.join()
    assert process.exitcode == 9
    monkeypatch.setattr(file_index, "_remember", remember)
    index.describe(paths)
    assert reads == paths[2:]


def test_two_processes_share_one_index(tmp_path, index):
    paths = [str(tmp_path / f"{number}.png") for number in range(600)]
    for number, path in enumerate(paths):
        Path(path).write_bytes(b"%d" % number)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        one, two = pool.map(index.describe, [paths, paths[::-1]])
    assert one.equals(two[::-1].reset_index(drop=True))
    assert one["content_hash"].nunique() == 600


def test_progress_is_shown_when_it_takes_long(files, index, monkeypatch, capsys):
    monkeypatch.setattr(file_index, "_SHOW_PROGRESS_AFTER_S", -1.0)
    monkeypatch.setattr(file_index, "_BATCH", 1)
    monkeypatch.setenv("FORCE_COLOR", "1")
    index.describe(files)
    assert "hashing files" in capsys.readouterr().err


def test_nothing_is_shown_when_it_is_quick(files, index, capsys):
    index.describe(files)
    assert capsys.readouterr() == ("", "")


def test_unusable_database_says_what_to_do(tmp_path, files):
    (tmp_path / "files.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match="expected a usable index of files at .*files.sqlite.*delete that file"):
        FileIndex(tmp_path / "files.sqlite").describe(files)


def test_a_path_that_is_not_utf8(index):
    with pytest.raises(DataError, match="file names in UTF-8, but 1 are not: /M\ufffdller.png; rename"):
        index.describe([os.fsdecode("/Müller.png".encode("latin-1"))])


def test_a_file_that_may_not_be_opened_is_reported_and_tried_again(files, index, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        table = index.describe(files[1:2])
    assert table["content_hash"].isna().all()
    assert f"{files[1]}: expected a readable file, but got: Permission denied; check path and" in table.loc[0, "error"]
    assert index.describe(files[1:2])["error"].isna().all()


def test_database_of_other_header_fields_is_left_alone(files, index, monkeypatch):
    index.describe(files)
    monkeypatch.setattr(file_index, "_TABLE", "files_of_a_later_version")
    assert index.describe(files)["content_hash"].notna().sum() == 4
    with sqlite3.connect(index._db_path) as connection:
        assert len(connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()) == 2
