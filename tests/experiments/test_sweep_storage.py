import logging
import math
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

import cxr.experiments.sweep_storage as module
from cxr.errors import ConfigError, MissingExtraError
from cxr.experiments.study import StorageError, open_study, storage_errors
from cxr.experiments.sweep_storage import (
    GRACE_BEATS,
    KEEPALIVES,
    PatientStorage,
    holding,
    is_absence,
    make_lock,
    parse_url,
    tell_url,
)


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    return PatientStorage(f"sqlite:///{tmp_path}/study.db", patience=60, heartbeat=1)


class Gone:
    """A call that fails a few times as one to a database that is away does."""

    def __init__(self, times):
        self.times = times

    def __call__(self):
        self.times -= 1
        if self.times >= 0:
            raise OperationalError("SELECT 1", {}, Exception("server closed"))
        return "here"


def test_addresses_are_told_without_their_password():
    assert tell_url("postgresql://me:secret@host/db") == "postgresql+psycopg://me:***@host/db"
    assert parse_url("sqlite:///a/study.db").database == "a/study.db"


@pytest.mark.parametrize(("address", "came"), [("mysql://host/db", "mysql"), ("a/study.db", "something else")])
def test_other_databases_are_refused(address, came):
    with pytest.raises(ConfigError, match=f"storage must be sqlite:.* or postgresql:.* but got {came}"):
        parse_url(address)


def test_without_the_driver_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"psycopg is not installed; .*cxr-lab\[postgres\]"):
        parse_url("postgresql://host/db")


def test_a_call_waits_until_the_database_is_back_and_tells_it_once(storage, caplog):
    with caplog.at_level(logging.WARNING):
        assert storage.patience.wait_for(Gone(3)) == "here"
    away, back = (record.message for record in caplog.records)
    assert away == "the study's database does not answer ((builtins.Exception) server closed); waiting for it"
    assert back == "the study's database is back"


def test_waiting_has_a_bound(storage):
    storage.patience.seconds = 0.0
    with pytest.raises(StorageError, match=r"study.db has not answered for 0 s .*server closed.*trials are kept"):
        storage.patience.wait_for(Gone(10**9))


def test_a_connection_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    connect, gone = module.RDBStorage.__init__, Gone(2)
    monkeypatch.setattr(module.RDBStorage, "__init__", lambda *words, **names: (gone(), connect(*words, **names))[1])
    storage = PatientStorage(f"sqlite:///{tmp_path}/study.db", patience=60, heartbeat=1)
    assert storage.get_all_studies() == []
    assert gone.times < 0


def test_calls_do_not_wait_one_after_another(storage, monkeypatch):
    monkeypatch.setattr(module.RDBStorage, "record_heartbeat", lambda self, trial_id: Gone(1)())
    storage.record_heartbeat(0)
    storage.patience.away_since -= 61
    gone = Gone(10)
    with pytest.raises(StorageError, match="has not answered for 60 s"):
        storage.patience.wait_for(gone)
    assert gone.times == 9, "a minute after the first heartbeat was missed, one more attempt is made"


def test_a_call_may_take_longer_than_a_database_may_be_away(storage, monkeypatch):
    def waits_for_a_lock():
        now[0] += 1000.0
        return gone()

    now, gone = [0.0], Gone(1)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: None))
    assert storage.patience.wait_for(waits_for_a_lock) == "here"


def test_a_lock_of_sqlite_is_waited_for_and_a_full_disk_is_not(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SQLITE_BUSY_SECONDS", 0)
    study = open_study(PatientStorage(f"sqlite:///{tmp_path}/study.db", patience=0, heartbeat=1), "a", "max")
    with sqlite3.connect(tmp_path / "study.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="has not answered for 0 s .*locked"):
            study.set_user_attr("name", 1)
        other.execute("ROLLBACK")
    event.listen(storage.engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
    storage.engine.dispose()
    full = pytest.raises(StorageError, match="cannot be used .*database or disk is full.; check .* the free disk space")
    with full, storage_errors("sqlite:///x"):
        storage.set_study_user_attr(study._study_id, "name", "x" * 100_000)


def test_a_full_disk_of_postgres_is_not_waited_for():
    errors = pytest.importorskip("psycopg").errors
    assert not is_absence(OperationalError("INSERT", {}, errors.DiskFull()))
    assert is_absence(OperationalError("INSERT", {}, errors.AdminShutdown()))


def test_what_is_refused_is_not_asked_again(storage):
    def refused():
        raise optuna.exceptions.StorageInternalError("no such thing")

    with pytest.raises(optuna.exceptions.StorageInternalError, match="no such thing"):
        storage.patience.wait_for(refused)


def lose_a_trial(storage, study):
    """A running trial whose last heartbeat is too long ago."""
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    return trial


def test_a_trial_without_heartbeats_is_lost_but_not_while_a_database_has_just_come_back(storage):
    study = open_study(storage, "a", "max")
    lose_a_trial(storage, study)
    storage.patience.wait_for(Gone(1))
    optuna.storages.fail_stale_trials(study)
    assert study.trials[0].state is TrialState.RUNNING
    storage.patience.back_since -= 2 * storage.heartbeat_interval
    optuna.storages.fail_stale_trials(study)
    assert study.trials[0].state is TrialState.FAIL


@pytest.mark.parametrize("days", [-1, 1])
def test_the_clock_of_a_machine_decides_nothing(storage, monkeypatch, days):
    class Skewed(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=days)

    study = open_study(storage, "a", "max")
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    monkeypatch.setattr("optuna.storages._rdb.storage.datetime", Skewed)
    optuna.storages.fail_stale_trials(study)
    assert study.trials[0].state is TrialState.RUNNING
    storage.record_heartbeat(trial._trial_id)
    assert storage._get_stale_trial_ids(study._study_id) == []


def test_a_heartbeat_that_cannot_be_written_is_left_out(storage, monkeypatch):
    gone = Gone(10**9)
    monkeypatch.setattr(module.RDBStorage, "record_heartbeat", lambda self, trial_id: gone())
    storage.record_heartbeat(0)
    assert storage.patience.away_since < math.inf
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE trial_heartbeats")
    monkeypatch.undo()
    storage.record_heartbeat(0)


def test_one_process_at_a_time_holds_a_lock(tmp_path):
    address = f"sqlite:///{tmp_path}/study.db"
    one, other = (make_lock(address, tmp_path, "a", "claim", 60) for _ in range(2))
    with holding(one), pytest.raises(TimeoutError):
        other.acquire(timeout=0.05)
    other.acquire(timeout=0.05)
    with holding(make_lock(address, tmp_path, "a", "test", 60)):
        other.release()


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(module.FileLock, "acquire", refuse)
    with pytest.raises(ConfigError, match="claim.lock must lie on a disk with locks.*; set CXR_LOG_DIR to a local"):
        make_lock(f"sqlite:///{tmp_path}/study.db", tmp_path, "a", "claim", 60).acquire()


HOLD = """
import sys, time
from pathlib import Path
from cxr.experiments.sweep_storage import make_lock
lock = make_lock(sys.argv[1], Path(), "a", "claim", 60)
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_postgres_gives_the_lock_of_a_killed_process_to_the_next(postgres, tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, postgres.url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    lock, got = make_lock(postgres.url, tmp_path, "a", "claim", 60), threading.Event()
    waiting = threading.Thread(target=lambda: (lock.acquire(), got.set()))
    waiting.start()
    assert not got.wait(1.0)
    with holding(make_lock(postgres.url, tmp_path, "another study", "claim", 60)):
        holder.kill()
    holder.wait()
    assert got.wait(60)
    waiting.join()
    lock.release()


@pytest.mark.slow
def test_postgres_is_waited_for_by_whoever_connects_or_locks(postgres, tmp_path):
    postgres.stop()
    back = threading.Timer(3.0, postgres.start)
    back.start()
    lock = make_lock(postgres.url, tmp_path, "a", "claim", 60)
    with holding(lock):
        assert PatientStorage(postgres.url, patience=60, heartbeat=1).get_all_studies() == []
    back.join()


@pytest.mark.slow
def test_both_ends_notice_a_machine_that_is_gone(postgres, tmp_path):
    lock = make_lock(postgres.url, tmp_path, "a", "claim", 60)
    with holding(lock):
        told = [lock.connection.exec_driver_sql(f"SHOW tcp_{name}").scalar() for name in KEEPALIVES]
        with socket.socket(fileno=lock.connection.connection.dbapi_connection.fileno()) as own:
            asked = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            options = [own.getsockopt(socket.IPPROTO_TCP, name) for name in asked]
            own.detach()
    assert list(map(int, told)) == [30, 10, 3]
    assert options == [30, 10, 3, 60_000]


@pytest.mark.slow
def test_a_worker_in_another_time_zone_sees_the_same_time(postgres, monkeypatch):
    here = PatientStorage(postgres.url, patience=5, heartbeat=1)
    study = open_study(here, "a", "max")
    trial = study.ask()
    here.record_heartbeat(trial._trial_id)
    for zone in ("Asia/Tokyo", "America/Los_Angeles"):
        monkeypatch.setenv("PGTZ", zone)
        there = PatientStorage(postgres.url, patience=5, heartbeat=1)
        assert there._get_stale_trial_ids(study._study_id) == []
        there.record_heartbeat(trial._trial_id)
        assert here._get_stale_trial_ids(study._study_id) == []


@pytest.mark.slow
def test_work_goes_on_when_the_server_comes_back_and_ends_with_a_sentence_when_it_does_not(postgres, monkeypatch):
    storage = PatientStorage(postgres.url, patience=60, heartbeat=1)
    study = open_study(storage, "a", "max")
    trial = study.ask()
    postgres.stop()
    back = threading.Timer(3.0, postgres.start)
    back.start()
    trial.set_user_attr("while", "away")
    study.tell(trial, 0.5)
    back.join()
    assert study.trials[0].user_attrs == {"while": "away"}
    postgres.stop()
    storage.patience.seconds = 1.0
    with pytest.raises(StorageError, match="has not answered for 1 s .*finished trials are kept in it; start it"):
        study.ask()
    postgres.start()
    storage.patience.seconds = 60.0
    assert [trial.value for trial in study.trials] == [0.5]


def test_living_trials_may_miss_some_heartbeats(storage):
    assert storage.grace_period == GRACE_BEATS * storage.heartbeat_interval > 2
    assert time.monotonic() - storage.patience.back_since > 10**6
