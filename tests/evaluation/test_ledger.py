import json
import logging
import multiprocessing
from datetime import UTC, datetime

import pytest
from filelock import FileLock

from cxr.errors import DataError
from cxr.evaluation import ledger
from cxr.evaluation.ledger import (
    FILE,
    OpeningCount,
    count_openings,
    hash_config,
    make_opening,
    read_ledger,
    record_opening,
)


def record(path, run="night", config_hash="c0", fingerprint="f0", score=0.9):
    return record_opening(path, make_opening(run, config_hash, fingerprint, "auroc", score))


def record_many(path, run):
    for _ in range(25):
        assert record(path, run=run) == ""


@pytest.fixture
def path(tmp_path):
    return tmp_path / FILE


def test_an_opening_is_one_line_of_plain_values(path):
    before = datetime.now(UTC).replace(microsecond=0)
    assert record(path) == ""
    values = json.loads(path.read_text())
    when = datetime.fromisoformat(values.pop("when"))
    assert before <= when <= datetime.now(UTC)
    assert values == {"run": "night", "config_hash": "c0", "fingerprint": "f0", "metric": "auroc", "score": 0.9}


def test_lines_are_added_and_read_back(path):
    for run, score in (("a", 0.5), ("ä\n", float("nan"))):
        record(path, run=run, score=score)
    assert len(path.read_bytes().splitlines()) == 2
    assert [(one.run, one.score) for one in read_ledger(path).openings] == [("a", 0.5), ("ä\n", None)]


def test_a_ledger_that_is_not_there_is_empty(path):
    assert count_openings(path, "f0") == OpeningCount(openings=0, repeats=0, runs=0, damaged=0, omitted="")


def test_repeats_are_openings_but_told_apart(path):
    for run, config_hash, fingerprint in (
        *(("a", "c0", "f0"), ("a", "c0", "f0"), ("a", "c1", "f0"), ("b", "c0", "f0")),
        *(("a", "c0", "other data"), ("a", "c0", "f0")),
    ):
        record(path, run, config_hash, fingerprint)
    assert count_openings(path, "f0") == OpeningCount(openings=5, repeats=2, runs=3, damaged=0, omitted="")
    assert count_openings(path, "other data").openings == 1


@pytest.mark.parametrize(
    "damage",
    [
        b'{"when": "2026-01-01", "run"\n', b"\xff\xfe\n", b"[1, 2]\n", b'{"run": "a"}\n', b"3\n",
        b'{"when": 1, "run": "a", "config_hash": "", "fingerprint": "f0", "metric": "", "score": 1}\n',
        b'{"when": "", "run": "a", "config_hash": "", "fingerprint": "f0", "metric": "", "score": "1"}\n',
    ],
)  # fmt: skip
def test_a_damaged_line_is_told_and_kept(path, damage, caplog):
    record(path)
    with path.open("ab") as file:
        file.write(damage)
    record(path)
    found = count_openings(path, "f0")
    assert (found.openings, found.damaged) == (2, 1)
    assert damage in path.read_bytes()
    assert f"the lines [2] of the ledger {FILE} are damaged and not counted" in caplog.text


def test_a_line_that_was_cut_off_takes_no_other_with_it(path):
    record(path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    record(path, run="next")
    ledger = read_ledger(path)
    assert [one.run for one in ledger.openings] == ["night", "next"]
    assert ledger.damaged == [2]


def test_two_processes_lose_no_line(path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=record_many, args=(path, run)) for run in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    runs = [one.run for one in read_ledger(path).openings]
    assert (runs.count("a"), runs.count("b"), len(runs)) == (25, 25, 50)


def test_a_folder_that_cannot_be_written_is_a_warning_and_a_stated_omission(tmp_path, caplog):
    (tmp_path / "file").touch()
    omitted = record(tmp_path / "file" / FILE)
    assert omitted.startswith(f"this opening of the test part is not in the ledger {FILE}: ")
    assert omitted in caplog.text
    assert str(tmp_path) not in caplog.text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (NotImplementedError("FileSystem does not appear to support flock"), "the file system has no locks"),
    ],
)
def test_the_reason_of_an_omission_is_told(path, error, reason, monkeypatch):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(ledger, "FileLock", refuse)
    assert record(path) == f"this opening of the test part is not in the ledger {FILE}: {reason}"
    assert not path.exists()


def test_a_lock_that_is_never_given_back_stops_no_run(path, monkeypatch):
    monkeypatch.setattr(ledger, "_PATIENCE_S", 0.05)
    with FileLock(path.with_name(f".{FILE}.lock")):
        assert record(path).endswith("another process holds its lock")


def test_a_ledger_that_cannot_be_read_is_a_stated_omission(path, caplog):
    path.mkdir()
    found = count_openings(path, "f0")
    assert found == OpeningCount(0, 0, 0, 0, f"the ledger {FILE} cannot be read: Is a directory")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("run", ["/runs/night", "C:\\runs\\night"])
def test_a_path_is_no_name_of_a_run(run):
    with pytest.raises(DataError, match="expected the name of a run in the ledger, got the path"):
        make_opening(run, "c0", "f0", "auroc", 0.5)


def test_the_hash_of_a_config_depends_on_its_values_alone():
    assert hash_config({"a": 1, "b": {"c": 2, "d": 3}}) == hash_config({"b": {"d": 3, "c": 2}, "a": 1})
    assert hash_config({"a": 1}) != hash_config({"a": 2})
