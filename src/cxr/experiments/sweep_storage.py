"""The database of a study that several processes share: patient while its server is away, and with one lock for all.

SQLite serves the processes of one machine, PostgreSQL those of several. Knows nothing of what a study is about.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from cxr.errors import ConfigError, DataError, require_extra

log = logging.getLogger(__name__)

GRACE_BEATS = 6
"""Heartbeats that a living trial may miss."""
RETRY_SECONDS = 0.5
SQLITE_BUSY_SECONDS = 60


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
    """What SQLAlchemy is told: connections are tried before use, and a lock of SQLite is waited for."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": SQLITE_BUSY_SECONDS}}
    return {"connect_args": {"connect_timeout": 10}, "pool_pre_ping": True}


def _tell_time_in_utc(connection: Any, _: Any) -> None:
    """Heartbeats are stored without a time zone, so all workers must tell them in one, whatever PGTZ or a role says."""
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    connection.commit()


class PatientStorage(RDBStorage):
    """Optuna's database storage whose calls wait while the database is away, and whose running trials have heartbeats.

    Heartbeats are written and judged by the clock of the database, so clocks of machines may differ. A trial is lost
    after `GRACE_BEATS` missed ones. None is given up within two heartbeats after the database came back: until then,
    those who live could not tell.

    Args:
        storage: Address of the database.
        patience: Seconds to wait for a database that does not answer.
        heartbeat: Seconds between two signs of life of a running trial.
    """

    def __init__(self, storage: str, patience: float, heartbeat: int) -> None:
        self.address = tell_url(storage)
        self.patience = patience
        self.is_away = False
        self.back_since = -float("inf")
        url = parse_url(storage)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(
                url.render_as_string(hide_password=False), connection_arguments(url),
                heartbeat_interval=heartbeat, grace_period=GRACE_BEATS * heartbeat,
            )  # fmt: skip
        if url.get_backend_name() != "sqlite":
            event.listen(self.engine, "connect", _tell_time_in_utc)
            self.engine.dispose()

    def wait_for(self, call: Callable[[], Any]) -> Any:
        """What `call` gives, tried again while the database is away.

        Raises:
            DataError: It was away for longer than `patience`.
        """
        started = time.monotonic()
        while True:
            try:
                return self._noting(call)
            except (StorageInternalError, DBAPIError) as error:
                if not is_absence(error):
                    raise
                if time.monotonic() - started > self.patience:
                    raise DataError(
                        f"the study's database {self.address} has not answered for {self.patience:g} s "
                        f"({_cause(error)}); finished trials are kept in it; start it, then repeat the command"
                    ) from error
            time.sleep(RETRY_SECONDS)

    def _noting(self, call: Callable[[], Any]) -> Any:
        """`call`, with a note of whether the database answered."""
        try:
            result = call()
        except (StorageInternalError, DBAPIError) as error:
            if is_absence(error) and not self.is_away:
                self.is_away = True
                log.warning("the study's database does not answer; waiting for it")
            raise
        if self.is_away:
            self.is_away, self.back_since = False, time.monotonic()
            log.warning("the study's database is back")
        return result

    def record_heartbeat(self, trial_id: int) -> None:
        """A sign of life; one that cannot be written is left out, since the next one follows."""
        try:
            self._noting(lambda: RDBStorage.record_heartbeat(self, trial_id))
        except (StorageInternalError, DBAPIError) as error:
            if not is_absence(error):
                raise

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        if time.monotonic() - self.back_since < 2 * self.heartbeat_interval:
            return []
        return self.wait_for(lambda: RDBStorage._get_stale_trial_ids(self, study_id))


def is_absence(error: Exception) -> bool:
    """Whether the database did not answer, rather than refused what it was asked."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, DBAPIError) and cause.connection_invalidated:
        return True
    return isinstance(cause, OperationalError | InterfaceError)


def _cause(error: Exception) -> str:
    cause = error if error.__cause__ is None else error.__cause__
    return str(cause).splitlines()[0]


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @wraps(method)
    def patient(self: PatientStorage, *arguments: Any, **keywords: Any) -> Any:
        return self.wait_for(lambda: method(self, *arguments, **keywords))

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


def make_lock(storage: str, folder: Path, study: str, name: str) -> Lock:
    """A lock for all processes that use the database: a file in `folder` for SQLite, PostgreSQL's own for PostgreSQL.

    Args:
        storage: Address of the database.
        folder: Folder of the sweep.
        study: Name of the study.
        name: What is locked; a study has several locks.
    """
    url = parse_url(storage)
    if url.get_backend_name() == "sqlite":
        return FileLock(folder / f".{name}.lock")
    return PostgresLock(create_engine(url, **connection_arguments(url)), f"{study}:{name}")


class PostgresLock:
    """An advisory lock of PostgreSQL: the server gives it back when the connection of its holder ends.

    Args:
        engine: Of the database.
        key: What is locked.
    """

    def __init__(self, engine: Engine, key: str) -> None:
        self.engine = engine
        self.key = key
        self.connection: Any = None

    def acquire(self) -> None:
        """Wait for the lock; a connection that is lost while waiting is an error of SQLAlchemy."""
        self.connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self.connection.detach()
        self.connection.execute(text("SELECT pg_advisory_lock(hashtext(:key))"), {"key": self.key})

    def release(self) -> None:
        """Give it back by ending the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
