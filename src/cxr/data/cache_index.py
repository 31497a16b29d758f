"""The table of what a cache holds: content hash -> row, or the error of a file that gives no image.

Knows nothing of pixels or of the file they lie in. The table is opened for each use, so it survives fork and pickling.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from cxr.data.decoding import decoder_versions
from cxr.errors import DataError

SECONDS_TO_WAIT_FOR_WRITERS = 60.0
SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS layout (layout TEXT);
CREATE TABLE IF NOT EXISTS images (content_hash TEXT PRIMARY KEY, row INTEGER UNIQUE) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bad (content_hash TEXT PRIMARY KEY, error TEXT, decoders TEXT) WITHOUT ROWID;
COMMIT;
"""


class DamagedCacheError(DataError):
    """A cache that has to be built anew."""


class Known(NamedTuple):
    """What is known of files by content hash: the rows of the images, the errors of the bad ones."""

    rows: dict[str, int]
    errors: dict[str, str]

    def count_rows(self) -> int:
        """Number of rows of the images file that hold an image."""
        return max(self.rows.values(), default=-1) + 1


class CacheIndex:
    """A SQLite file.

    Args:
        path: The file; made at the first `add`.
        layout: Type and shape of the images, for example "uint8 224x224"; a file of another layout is damage.
    """

    def __init__(self, path: Path, layout: str) -> None:
        self.path = path
        self._layout = layout

    def load(self) -> Known:
        """Everything known; errors found by other versions of the decoders are forgotten.

        Raises:
            DamagedCacheError: The file is no such table.
            DataError: The file cannot be read now.
        """
        if not self.path.exists() or self.path.stat().st_size == 0:
            return Known({}, {})
        try:
            with self._connect() as connection:
                layouts = [layout for (layout,) in connection.execute("SELECT layout FROM layout")]
                rows = dict(connection.execute("SELECT content_hash, row FROM images"))
                query = "SELECT content_hash, error FROM bad WHERE decoders = ?"
                errors = dict(connection.execute(query, (decoder_versions(),)))
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
                raise DataError(f"cannot read the cache index {self.path}: {error}; try again") from error
            raise self._damage(str(error)) from error
        if rows and layouts != [self._layout]:
            raise self._damage(f"expected images of {self._layout}, got {', '.join(layouts)}")
        return Known(rows, errors)

    def add(self, rows: dict[str, int], errors: dict[str, str]) -> None:
        """Add a batch in one transaction.

        Args:
            rows: content hash -> row.
            errors: content hash -> error.
        """
        versions = decoder_versions()
        with self._connect() as connection:
            connection.executescript(SCHEMA)
            query = "INSERT INTO layout SELECT ? WHERE NOT EXISTS (SELECT 1 FROM layout)"
            connection.execute(query, (self._layout,))
            connection.executemany("INSERT INTO images VALUES (?, ?)", rows.items())
            bad = [(key, error, versions) for key, error in errors.items()]
            connection.executemany("INSERT OR REPLACE INTO bad VALUES (?, ?, ?)", bad)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=SECONDS_TO_WAIT_FOR_WRITERS)
        with closing(connection), connection:
            yield connection

    def _damage(self, reason: str) -> DamagedCacheError:
        return DamagedCacheError(f"the cache index {self.path} is damaged ({reason}); delete its folder")
