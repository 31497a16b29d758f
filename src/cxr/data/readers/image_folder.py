"""Folders named by class, with or without official parts -> a table of samples.

Knows nothing of what the classes mean, of patients or of splits that are carved later, and opens no image.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cxr.data.readers.remedy import download_remedy
from cxr.data.samples import list_first, require_utf8
from cxr.errors import DataError

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")
PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_LAYOUT = "<class>/*, <class>/images/* or train|val|valid|test/<class>/*"
_OWN_REMEDY = (
    "point data.root at such a folder, or try the same command on phantoms, without any download: data=phantom"
)


def make_image_folder_samples(root: str | Path, *, dataset: str | None = None) -> pd.DataFrame:
    """List the images under `train|val|valid|test/<class>/`, `<class>/` or `<class>/images/`.

    The name of the class folder, spaces included, is the finding. Hidden files are ignored; files that are no image by
    their extension (any case) and folders outside the layout are ignored and counted.

    Args:
        root: The folder. Where it has a folder named as a part, only such folders are read.
        dataset: Name in the download catalogue, for the error where nothing is found; None for a folder of the user's.

    Returns:
        One row per image, sorted by path, with `sample_id` (path from `root` without extension; with it, where two
        files differ in nothing else), `image_path`, `finding` and, where the folders are parts, `split`;
        `attrs["report"]` holds the counts of what was ignored.

    Raises:
        DataError: `root` is no folder, has no class folders, a class folder has no images, or a name is not UTF-8.
    """
    root = Path(root).absolute()
    remedy = _OWN_REMEDY if dataset is None else download_remedy(dataset)
    if not root.is_dir():
        raise DataError(
            f"expected a folder of images at {root}, laid out as {_LAYOUT}, but there is no such folder; {remedy}"
        )
    ignored: Counter[str] = Counter()
    class_folders = list(_list_class_folders(root, ignored))
    if not class_folders:
        raise DataError(f"expected folders of images in {root}, laid out as {_LAYOUT}, but found none; {remedy}")
    files = {folder: _list_images(folder, ignored) for _, folder in class_folders}
    empty = [str(folder.relative_to(root)) for folder, images in files.items() if not images]
    if empty:
        raise DataError(
            f"expected images in every class folder of {root}, but {list_first(empty)} has none; add images "
            f"({', '.join(IMAGE_SUFFIXES)}) or remove the folder"
        )
    if ignored:
        log.warning("ignored in %s: %s", root, dict(ignored))
    return _make_table(
        root, [(part, folder.name, path) for part, folder in class_folders for path in files[folder]], ignored
    )


def _list_class_folders(root: Path, ignored: Counter[str]) -> Iterator[tuple[str | None, Path]]:
    """Yield (official part or None, class folder)."""
    folders = _list_folders(root)
    parts = [folder for folder in folders if folder.name.lower() in PART_NAMES]
    if not parts:
        yield from ((None, folder) for folder in folders)
        return
    ignored.update("folders outside the layout" for folder in folders if folder not in parts)
    for part in parts:
        yield from ((PART_NAMES[part.name.lower()], folder) for folder in _list_folders(part))


def _list_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_images(folder: Path, ignored: Counter[str]) -> list[Path]:
    """List the images of a class folder and of its sub-folder `images`."""
    images = []
    for place in (folder, folder / "images"):
        files = sorted(place.iterdir()) if place.is_dir() else []
        for path in files:
            if path.name.startswith(".") or path == folder / "images":
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES:
                images.append(path)
            else:
                ignored["files without an image's extension" if path.is_file() else "folders outside the layout"] += 1
    return images


def _make_table(root: Path, rows: list[tuple[str | None, str, Path]], ignored: Counter[str]) -> pd.DataFrame:
    require_utf8(path for _, _, path in rows)
    paths = [path.relative_to(root) for _, _, path in rows]
    samples = pd.DataFrame(
        {
            "sample_id": [path.with_suffix("").as_posix() for path in paths],
            "image_path": [str(path) for _, _, path in rows],
            "finding": [finding for _, finding, _ in rows],
            "split": [part for part, _, _ in rows],
        }
    )
    twins = samples["sample_id"].duplicated(keep=False)
    samples.loc[twins, "sample_id"] = [path.as_posix() for path, twin in zip(paths, twins, strict=True) if twin]
    samples.attrs["report"] = dict(ignored)
    return samples.dropna(axis=1, how="all")
