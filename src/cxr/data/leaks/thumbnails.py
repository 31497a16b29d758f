"""What the search needs of every image, made once: the hash of its stored pixels and a thumbnail.

Knows nothing of parts, patients or of what is similar. Rows are found by the content hash of the file; the database
belongs to one preprocessing, since other settings give other pixels.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr.data.image_store import ImageStore
from cxr.errors import DataError
from cxr.imaging.resize import resize

THUMBNAIL = 64
_BATCH = 256
_PATIENCE_S = 60.0  # how long to wait for another process that writes

Thumbnails = npt.NDArray[np.uint8]


class Prints(NamedTuple):
    """What is known of N images.

    Attributes:
        pixel_hashes: N hashes of shape and pixels of the stored image.
        thumbnails: (N, 64, 64) uint8.
    """

    pixel_hashes: list[str]
    thumbnails: Thumbnails


class ThumbnailStore:
    """A SQLite table: content hash -> pixel hash and thumbnail.

    Args:
        db_path: The database; its folder is made if there is none.
        images: Where stored images come from.
    """

    def __init__(self, db_path: Path, images: ImageStore) -> None:
        self._db_path = Path(db_path)
        self._images = images

    def describe(self, paths: Sequence[str], hashes: Sequence[str]) -> Prints:
        """Pixel hash and thumbnail of each image, in the given order; only images not seen before are opened.

        Args:
            paths: The files, all of which the image store found good.
            hashes: The hash of each file's bytes.

        Raises:
            DataError: The database cannot be used.
        """
        first_paths: dict[str, str] = {}
        for path, key in zip(paths, hashes, strict=True):
            first_paths.setdefault(key, path)
        with self._connect() as connection:
            known = dict(_read(connection, list(first_paths)))
            missing = {key: path for key, path in first_paths.items() if key not in known}
            for batch in self._make(missing):
                connection.executemany("INSERT OR REPLACE INTO prints VALUES (?, ?, ?)", batch)
                connection.commit()
                known |= {key: (pixel_hash, thumbnail) for key, pixel_hash, thumbnail in batch}
        found = [known[key] for key in hashes]
        pixels = np.frombuffer(b"".join(thumbnail for _, thumbnail in found), np.uint8)
        return Prints([pixel_hash for pixel_hash, _ in found], pixels.reshape(-1, THUMBNAIL, THUMBNAIL))

    def _make(self, missing: dict[str, str]) -> Iterator[list[tuple[str, str, bytes]]]:
        keys = list(missing)
        stored = self._images.open(list(missing.values()), keys)
        for start in range(0, len(keys), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(keys)))
            yield [(keys[row], *_describe(image)) for row, image in zip(rows, stored[rows], strict=True)]

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db_path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._db_path, timeout=_PATIENCE_S)) as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS prints "
                    "(content_hash TEXT PRIMARY KEY, pixel_hash TEXT, thumbnail BLOB) WITHOUT ROWID"
                )
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"expected usable thumbnails at {self._db_path}, but got: {error}; "
                "free space or permit writing there, or delete that file, which is made anew from the images"
            ) from error


def _read(connection: sqlite3.Connection, keys: list[str]) -> Iterator[tuple[str, tuple[str, bytes]]]:
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH]
        marks = ", ".join("?" * len(batch))
        query = f"SELECT content_hash, pixel_hash, thumbnail FROM prints WHERE content_hash IN ({marks})"
        yield from ((key, (pixel_hash, thumbnail)) for key, pixel_hash, thumbnail in connection.execute(query, batch))


def _describe(stored: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> tuple[str, bytes]:
    """Pixel hash and thumbnail of one stored image, (h, w)."""
    digest = hashlib.sha256(f"{stored.dtype} {stored.shape} ".encode())
    digest.update(stored.tobytes())
    grey = stored.astype(np.float32) * np.float32(255 / np.iinfo(stored.dtype).max)
    small = resize(without_bars(grey), (THUMBNAIL, THUMBNAIL))
    return digest.hexdigest(), np.rint(small).astype(np.uint8).tobytes()


def without_bars(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The image without equal bars of zeros on opposite sides: the padding of one that was not square."""
    for _ in range(2):
        empty = image.max(axis=1) == 0
        if not empty.all():
            bar = min(int(np.argmin(empty)), int(np.argmin(empty[::-1])))
            image = image[bar : len(image) - bar]
        image = image.T
    return np.ascontiguousarray(image)
