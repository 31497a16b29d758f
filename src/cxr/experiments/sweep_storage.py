"""The database of a study that several processes share: patient while its server is away, and with one lock for all.

SQLite serves the processes of one machine, PostgreSQL those of several. Knows nothing of what a study is about.
"""

import logging
import math
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from cxr.errors import ConfigError, require_extra
from cxr.experiments.study import StorageError

log = logging.getLogger(__name__)

GRACE_BEATS = 6
"""Heartbeats that a living trial may miss."""
RETRY_SECONDS = 0.5
SQLITE_BUSY_SECONDS = 60
SQLITE_ABSENCES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN")
POSTGRES_DISK_FULL = "53100"
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds of silence, seconds between questions, questions without an answer: then the other machine is gone."""


def parse_url(storage: str) -> URL:
    """The address of the database, with the driver that this project installs.

    Raises:
        ConfigError: It is neither SQLite nor PostgreSQL.
        MissingExtraError: The driver for PostgreSQL is not installed.
    """
    try:
        url = make_url(storage)
    except ArgumentError:
        raise ConfigError(_not_a_database("something else")) from None
    if url.get_backend_name() == "postgresql":
        require_extra("psycopg", "postgres")
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        raise ConfigError(_not_a_database(url.get_backend_name()))
    return url


def _not_a_database(came: str) -> str:
    return (
        "hydra.sweeper.storage must be sqlite:///path/study.db or postgresql://user@host/database, "
        f"but got {came}; mend it"
    )


def tell_url(storage: str) -> str:
    """The address without its password."""
    return parse_url(storage).render_as_string(hide_password=True)


def connection_arguments(url: URL) -> dict[str, Any]:
    """What SQLAlchemy is told: connections are tried before use, and a lock of SQLite is waited for.

    A server whose machine is gone does not even refuse; the keepalives notice it within a minute.
    """
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": SQLITE_BUSY_SECONDS}}
    return {
        "connect_args": {"connect_timeout": 10, "tcp_user_timeout": 60_000, **KEEPALIVES},
        "pool_pre_ping": True,
    }


def try_connecting(storage: str) -> None:
    """Connect once, without patience: what refuses at the start of a command is more often a mistake than an absence.

    Raises:
        SQLAlchemyError: Nothing answers there, or it refuses.
    """
    url = parse_url(storage)
    engine = create_engine(url, **connection_arguments(url))
    engine.connect().close()
    engine.dispose()


def _tell_time_in_utc(connection: Any, _: Any) -> None:
    """Heartbeats are stored without a time zone, so all workers must tell them in one, whatever PGTZ or a role says."""
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    connection.commit()


class Patience:
    """Waits for a database that is away, and knows since when it is.

    Args:
        storage: Address of the database.
        seconds: How long it may be away.
    """

    def __init__(self, storage: str, seconds: float) -> None:
        self.address = tell_url(storage)
        self.seconds = seconds
        self.away_since = math.inf
        self.back_since = -math.inf

    def wait_for(self, call: Callable[[], Any]) -> Any:
        """What `call` gives, tried again while the database is away.

        The time counts from when anybody in this process missed it, so that calls do not wait one after another.

        Raises:
            StorageError: It was away for too long.
        """
        since = math.inf
        while True:
            try:
                return self.note(call)
            except (StorageInternalError, DBAPIError) as error:
                if not is_absence(error):
                    raise
                since = min(since, self.away_since)
                if time.monotonic() - since > self.seconds:
                    raise StorageError(
                        f"the study's database {self.address} has not answered for {self.seconds:g} s "
                        f"({_cause(error)}); finished trials are kept in it; start it, then repeat the command"
                    ) from error
            time.sleep(RETRY_SECONDS)

    def note(self, call: Callable[[], Any]) -> Any:
        """What `call` gives, with a note of whether the database answered."""
        try:
            result = call()
        except (StorageInternalError, DBAPIError) as error:
            if is_absence(error) and self.away_since == math.inf:
                self.away_since = time.monotonic()
                log.warning("the study's database does not answer (%s); waiting for it", _cause(error))
            raise
        if self.away_since < math.inf:
            self.away_since, self.back_since = math.inf, time.monotonic()
            log.warning("the study's database is back")
        return result


class PatientStorage(RDBStorage):
    """Optuna's database storage whose calls wait while the database is away, and whose running trials have heartbeats.

    Heartbeats are written and judged by the clock of the database, so clocks of machines may differ. A trial is lost
    after `GRACE_BEATS` missed ones. None is given up within two heartbeats after the database came back: until then,
    those who live could not tell.

    Args:
        storage: Address of the database.
        patience: Seconds that it may be away.
        heartbeat: Seconds between two signs of life of a running trial.

    Raises:
        StorageError: It was away for longer.
    """

    def __init__(self, storage: str, patience: float, heartbeat: int) -> None:
        self.patience = Patience(storage, patience)
        self.patience.wait_for(lambda: self._connect(parse_url(storage), heartbeat))

    def _connect(self, url: URL, heartbeat: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            RDBStorage.__init__(
                self, url.render_as_string(hide_password=False), connection_arguments(url),
                heartbeat_interval=heartbeat, grace_period=GRACE_BEATS * heartbeat,
            )  # fmt: skip
        if url.get_backend_name() != "sqlite":
            event.listen(self.engine, "connect", _tell_time_in_utc)
            self.engine.dispose()

    def record_heartbeat(self, trial_id: int) -> None:
        """A sign of life; one that cannot be written is left out, since the next one follows."""
        with suppress(StorageInternalError, DBAPIError):
            self.patience.note(lambda: RDBStorage.record_heartbeat(self, trial_id))

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        if time.monotonic() - self.patience.back_since < 2 * self.heartbeat_interval:
            return []
        return self.patience.wait_for(lambda: RDBStorage._get_stale_trial_ids(self, study_id))


def is_absence(error: Exception) -> bool:
    """Whether the database did not answer, rather than refused what it was asked."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, DBAPIError) and cause.connection_invalidated:
        return True
    return isinstance(cause, OperationalError | InterfaceError) and _may_pass(cause.orig)


def _may_pass(reason: BaseException | None) -> bool:
    """Whether waiting may help: a lock of SQLite ends, and a server starts; a full disk stays full."""
    if isinstance(reason, sqlite3.Error):
        return getattr(reason, "sqlite_errorname", "").startswith(SQLITE_ABSENCES)
    return getattr(reason, "sqlstate", None) != POSTGRES_DISK_FULL


def _cause(error: Exception) -> str:
    cause = error if error.__cause__ is None else error.__cause__
    return str(cause).splitlines()[0]


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @wraps(method)
    def patient(self: PatientStorage, *arguments: Any, **keywords: Any) -> Any:
        return self.patience.wait_for(lambda: method(self, *arguments, **keywords))

    return patient


# What Optuna's cache calls, and nothing that these call in turn.
for _name in (
    "create_new_study", "set_study_user_attr", "set_study_system_attr", "get_study_id_from_name",
    "get_study_name_from_id", "get_study_directions", "get_study_user_attrs", "get_study_system_attrs",
    "get_all_studies", "_create_new_trial", "_set_trial_param", "get_trial_id_from_study_id_trial_number",
    "_get_best_trial_id", "set_trial_state_values", "set_trial_intermediate_value", "set_trial_user_attr",
    "set_trial_system_attr", "get_trial", "_get_trials",
):  # fmt: skip
    setattr(PatientStorage, _name, _patient(_name))


class Lock(Protocol):
    """What one process at a time can hold; it is given back when that process ends."""

    def acquire(self) -> Any:
        """Wait for it."""

    def release(self) -> None:
        """Give it back; nothing happens if it is not held."""


@contextmanager
def holding(lock: Lock) -> Iterator[None]:
    """Hold `lock` inside the block."""
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def make_lock(storage: str, folder: Path, study: str, name: str, patience: float) -> Lock:
    """A lock for all processes that use the database: a file in `folder` for SQLite, PostgreSQL's own for PostgreSQL.

    Args:
        storage: Address of the database.
        folder: Folder of the sweep.
        study: Name of the study.
        name: What is locked; a study has several locks.
        patience: Seconds that the database may be away.
    """
    url = parse_url(storage)
    if url.get_backend_name() == "sqlite":
        return DiskLock(folder / f".{name}.lock")
    engine = create_engine(url, **connection_arguments(url))
    return PostgresLock(engine, f"{study}:{name}", Patience(storage, patience))


class DiskLock(FileLock):
    """A file that one process of this machine can hold."""

    def acquire(self, *arguments: Any, **keywords: Any) -> Any:
        """Wait for the lock.

        Raises:
            ConfigError: The disk has no locks.
        """
        try:
            return super().acquire(*arguments, **keywords)
        except NotImplementedError as error:
            raise ConfigError(
                f"{self.lock_file} must lie on a disk with locks, by which workers share SQLite, but this one has "
                "none; set CXR_LOG_DIR to a local disk, or hydra.sweeper.storage=postgresql://user@host/database"
            ) from error


class PostgresLock:
    """An advisory lock of PostgreSQL: the server gives it back when the connection of its holder ends.

    Args:
        engine: Of the database.
        key: What is locked.
        patience: With the database.
    """

    def __init__(self, engine: Engine, key: str, patience: Patience) -> None:
        self.engine = engine
        self.key = key
        self.patience = patience
        self.connection: Any = None

    def acquire(self) -> None:
        """Wait for the lock.

        Raises:
            StorageError: The database was away for too long.
        """
        self.patience.wait_for(self._acquire)

    def _acquire(self) -> None:
        """One attempt, on a connection whose end the server notices even when this machine loses its power."""
        self.connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self.connection.detach()
        for name, value in KEEPALIVES.items():
            self.connection.execute(text(f"SET tcp_{name} = {value}"))
        self.connection.execute(text("SELECT pg_advisory_lock(hashtext(:key))"), {"key": self.key})

    def release(self) -> None:
        """Give it back by ending the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
