"""Stored images as tar shards on a disk or in object storage, from which each machine fills its cache without decoding.

Knows nothing of labels, splits or torch. A shard holds images by content hash; `shards.json` beside the shards says how
they were made. Not guaranteed: the order of images in the shards means nothing, since an epoch is read from the cache.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tarfile import TarError
from typing import Any
from urllib.parse import urlparse

import numpy as np

from cxr.data.decoding import Decoded, StoredArray
from cxr.data.image_store import StoredImages
from cxr.errors import DataError, require_extra
from cxr.imaging.preprocess import Preprocess
from cxr.progress import show_late

MANIFEST, PATTERN = "shards.json", "images-%06d.tar"
PIXELS = "bin"
SCHEMES = ("", "http", "https", "s3", "gs")
BATCH = 256
BYTES_PER_SHARD = 500e6
"""Large enough that a request to object storage costs little beside it, small enough to be sent again."""


def write_shards(
    images: StoredImages,
    hashes: Sequence[str],
    preprocess: Preprocess,
    folder: Path,
    bytes_per_shard: float = BYTES_PER_SHARD,
) -> int:
    """Write stored images as shards, each content once, and then what describes them.

    Args:
        images: The stored images.
        hashes: The hash of each one's file, in the same order.
        preprocess: What made them.
        folder: Where to; made if there is none.
        bytes_per_shard: Largest size of a shard.

    Returns:
        Number of shards.

    Raises:
        DataError: The folder holds shards already, or cannot be written.
        MissingExtraError: webdataset is not installed.
    """
    require_extra("webdataset", "shards")
    from webdataset import ShardWriter

    if (folder / MANIFEST).exists():
        raise DataError(f"expected a folder without shards, but {folder} has {MANIFEST}; choose another --out")
    rows = np.unique(np.array(hashes), return_index=True)[1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ShardWriter(str(folder / PATTERN), maxcount=len(rows) + 1, maxsize=bytes_per_shard, verbose=0) as writer:
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                for row, stored in zip(batch, images[batch], strict=True):
                    writer.write({"__key__": hashes[row], PIXELS: stored.tobytes()})
            count = int(writer.shard)
        (folder / MANIFEST).write_text(json.dumps(_describe(preprocess, count, len(rows)), indent=2) + "\n")
    except OSError as error:
        raise DataError(f"cannot write shards to {folder}: {error}; make room or choose another --out") from error
    return count


class ShardReader:
    """Reads images out of shards where a cache would decode files.

    Args:
        place: The folder or address that holds the shards: a path, or s3://, gs:// or https://.
        preprocess: What the images must have been made with.

    Raises:
        DataError: The address is of another kind.
        MissingExtraError: webdataset is not installed.
    """

    def __init__(self, place: str, preprocess: Preprocess) -> None:
        require_extra("webdataset", "shards")
        if urlparse(place).scheme not in SCHEMES:
            raise DataError(f"expected data.shards to be a folder, s3://, gs:// or https://, but got {place!r}")
        self._place = place.rstrip("/")
        self._preprocess = preprocess

    def __call__(self, missing: Mapping[str, str]) -> Iterator[list[tuple[str, Decoded]]]:
        """Find images, reading every shard once and in order.

        Args:
            missing: File -> content hash.

        Yields:
            Lists of (file, its image), and at the end what no shard holds.

        Raises:
            DataError: There are no shards, they cannot be read, or they were made with another preprocessing.
        """
        paths = {key: path for path, key in missing.items()}
        yield from show_late(self._find(paths), len(missing), "reading shards")
        reason = f"not among the images in {self._place}; write the shards anew with `cxr data shards`"
        yield [(path, Decoded(error=f"{path}: {reason}")) for path in paths.values()]

    def _find(self, paths: dict[str, str]) -> Iterator[list[tuple[str, Decoded]]]:
        """Yield what is found and take it out of `paths`; ends as soon as nothing is left to find."""
        batch: list[tuple[str, Decoded]] = []
        for key, image in self._read():
            if key in paths:
                batch.append((paths.pop(key), Decoded(content=image)))
            if batch and (len(batch) == BATCH or not paths):
                yield batch
                batch = []
            if not paths:
                return
        if batch:
            yield batch

    def _read(self) -> Iterator[tuple[str, StoredArray]]:
        from webdataset.tariterators import tarfile_samples

        manifest = self._read_manifest()
        try:
            for sample in tarfile_samples({"url": self._url(PATTERN % number)} for number in range(manifest["shards"])):
                stored = np.frombuffer(sample[PIXELS], self._preprocess.precision)
                yield sample["__key__"], stored.reshape(self._preprocess.size)
        except (OSError, KeyError, ValueError, TarError) as error:
            raise DataError(f"cannot read the shards in {self._place}: {error}; copy or write them anew") from error

    def _read_manifest(self) -> dict[str, Any]:
        from webdataset.gopen import gopen

        try:
            with gopen(self._url(MANIFEST)) as file:
                found: dict[str, Any] = json.loads(file.read())
        except (OSError, ValueError) as error:
            raise DataError(
                f"expected shards in {self._place}, but {MANIFEST} cannot be read ({error}); write them with "
                "`cxr data shards`, and for s3:// and gs:// have `aws` or `gsutil` installed"
            ) from error
        if found["stored_fingerprint"] != self._preprocess.stored_fingerprint:
            raise DataError(
                f"expected shards of the preprocessing of this run, but those in {self._place} hold images of "
                f"{found['preprocess']}; choose that preprocessing, or write other shards"
            )
        return found

    def _url(self, name: str) -> str:
        """As webdataset opens it, which asks other programs for what is not a file."""
        url = f"{self._place}/{name}"
        return f"pipe:aws s3 cp {shlex.quote(url)} -" if url.startswith("s3://") else url


def _describe(preprocess: Preprocess, shards: int, images: int) -> dict[str, Any]:
    fingerprint = preprocess.stored_fingerprint
    return {"shards": shards, "images": images, "stored_fingerprint": fingerprint, "preprocess": preprocess.to_dict()}
