"""One .npz file in the style of MedMNIST, with images and labels of three parts -> PNG files and a table of samples.

Knows nothing of what the labels mean. The images are unpacked once, so that everything downstream sees files; no pixel
changes. A part is in memory as a whole while it is unpacked.
"""

import hashlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock
from PIL import Image

from cxr.data.samples import PARTS, TARGET_PREFIX
from cxr.errors import DataError

Array = npt.NDArray[Any]
_FORMAT = "1"  # of the unpacked folder


def make_npz_samples(path: str | Path, *, unpack_to: str | Path, targets: Sequence[str] = ()) -> pd.DataFrame:
    """Unpack `train|val|test_images` unless that was done, and list the images with `train|val|test_labels`.

    Args:
        path: The file. Images are (N, H, W) of 8 or 16 bits or (N, H, W, 3) of 8 bits; labels (N,) or (N, 1) whole
            numbers, or (N, T) of 0, 1 and, where not stated, NaN. A part without images is left out.
        unpack_to: Folder of unpacked files; each is in a sub-folder named by the hash of its bytes. Two processes that
            ask at once unpack it once, and a killed one leaves nothing that looks complete.
        targets: Names of the T targets of a multi-label file; needed for such a file alone.

    Returns:
        One row per image with `sample_id` (part/number), `image_path`, `split` (the official part), and `finding` (the
        label as text) or `target_<name>` for each of `targets`.

    Raises:
        DataError: No such file, not such arrays, or the folder cannot be written.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise DataError(
            f"expected a file of images and labels at {path}, but there is no such file; point data.path at an .npz "
            "file such as pneumoniamnist.npz, or try phantoms, without any download: data=phantom"
        )
    try:
        labels, folder = _open(path, Path(unpack_to).absolute(), "iubf" if targets else "iub")
    except _WrongArrayError as error:
        raise DataError(
            f"expected images and labels as MedMNIST has them in {path}, but got {error}; save the file anew with such "
            "arrays"
        ) from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"expected an .npz file with arrays such as train_images and train_labels in {path}, but got: {error}; "
            "download it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"expected to read {path} and to unpack it to {unpack_to}, but got: {error}; free space or permit it"
        ) from error
    return pd.concat([_list_part(folder, part, values, targets) for part, values in labels.items()], ignore_index=True)


class _WrongArrayError(ValueError):
    """A sound array of the wrong kind."""


def _open(path: Path, unpack_to: Path, kinds: str) -> tuple[dict[str, Array], Path]:
    """Return the labels of each part, of one of these kinds of type, and the folder with its images."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of arrays")
    with np.load(path, allow_pickle=False) as arrays:
        labels = {part: arrays[f"{part}_labels"] for part in PARTS if f"{part}_labels" in arrays}
        if not labels:
            raise ValueError(f"no labels of {', '.join(PARTS)}")
        labels = {part: values for part, values in labels.items() if len(_check_labels(values, part, kinds))}
        if not labels:
            raise _WrongArrayError("no image in any part")
        return labels, _unpack(path, arrays, list(labels), unpack_to)


def _list_part(folder: Path, part: str, labels: Array, targets: Sequence[str]) -> pd.DataFrame:
    ids = [f"{part}/{number:06d}" for number in range(len(labels))]
    samples = pd.DataFrame({"sample_id": ids, "image_path": [f"{folder}/{name}.png" for name in ids], "split": part})
    values = labels.reshape(len(labels), -1)
    if values.shape[1] != max(len(targets), 1):
        raise DataError(
            f"expected {max(len(targets), 1)} labels for each image of the part {part}, but got {values.shape[1]}; "
            "name the targets of a multi-label file in data.targets, and none for another"
        )
    if targets:
        return samples.assign(**{TARGET_PREFIX + name: values[:, column] for column, name in enumerate(targets)})
    return samples.assign(finding=values[:, 0].astype(str))


def _unpack(path: Path, arrays: Any, parts: list[str], unpack_to: Path) -> Path:
    """Return the folder with the images of the parts, made unless it is there."""
    with path.open("rb") as file:
        folder = unpack_to / f"{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}-{_FORMAT}"
    unpack_to.mkdir(parents=True, exist_ok=True)
    with FileLock(unpack_to / f".{folder.name}.lock"):
        if folder.is_dir():
            return folder
        for leftover in unpack_to.glob(f".{folder.name}.partial-*"):
            shutil.rmtree(leftover)
        draft = unpack_to / f".{folder.name}.partial-{os.getpid()}"
        for part in parts:
            _write_part(draft / part, _check_images(arrays[f"{part}_images"], len(arrays[f"{part}_labels"]), part))
        draft.rename(folder)
    return folder


def _check_labels(labels: Array, part: str, kinds: str) -> Array:
    if labels.ndim == 0 or labels.dtype.kind not in kinds:
        raise _WrongArrayError(
            f"{part}_labels of shape {labels.shape} and type {labels.dtype}; expected whole numbers, (N,) or (N, T)"
        )
    return labels


def _check_images(images: Array, count: int, part: str) -> Array:
    gray = images.ndim == 3 and images.dtype in (np.uint8, np.uint16)
    colour = images.ndim == 4 and images.shape[-1] == 3 and images.dtype == np.uint8
    if not (gray or colour) or len(images) != count:
        raise _WrongArrayError(
            f"{part}_images of shape {images.shape} and type {images.dtype} for {count} labels; expected (N, H, W) of "
            "uint8 or uint16, or (N, H, W, 3) of uint8"
        )
    return images


def _write_part(folder: Path, images: Array) -> None:
    folder.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(_write_png, images, (folder / f"{number:06d}.png" for number in range(len(images)))))


def _write_png(pixels: Array, path: Path) -> None:
    Image.fromarray(pixels).save(path, compress_level=1)
