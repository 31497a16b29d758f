"""From the name of a dataset to its folder: check, download, verify, unpack, and only then give the folder its name."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from cxr.data.download.archive import extract_archive, format_size, free_bytes, require_space
from cxr.data.download.catalogue import Dataset, missing_proof
from cxr.data.download.credentials import HOW_TO_LOG_IN, find_login
from cxr.data.download.fetch import PartialFile, RemoteFile, bytes_to_come, fetch
from cxr.data.download.kaggle_api import BY_HAND, KaggleApi, explain_refusal
from cxr.errors import NO_SPACE, DataError, require_extra


def plan_download(dataset: Dataset, data_dir: Path) -> dict[str, str]:
    """What `get_dataset` would do, for people to read; contacts nothing and writes nothing.

    Args:
        dataset: What to get.
        data_dir: Folder of all datasets.

    Returns:
        Slug, page, terms, size, folder, free disk, credentials and what is there already.

    Raises:
        DataError: the folder cannot be looked into.
    """
    with _disk_errors_told(data_dir):
        free = free_bytes(data_dir)
        state = _state(dataset, data_dir)
    fits = state == "complete" or free > dataset.archive_bytes + dataset.extracted_bytes
    return {
        "dataset": f"{dataset.name} = Kaggle {dataset.kind} {dataset.slug}",
        "page": dataset.page,
        "terms": dataset.terms,
        "size": f"about {format_size(dataset.archive_bytes)}, unpacked {format_size(dataset.extracted_bytes)}",
        "folder": str(data_dir / dataset.folder),
        "on disk": state,
        "free disk": format_size(free) + ("" if fits else ", too little for archive and content together"),
        "credentials": _login_state(dataset),
    }


def get_dataset(dataset: Dataset, data_dir: Path) -> Path:
    """Make sure that a dataset is on disk.

    A complete dataset is left as it is. An archive put into `data_dir` by hand is unpacked without contacting Kaggle.
    What an interrupted call has downloaded is continued.

    Args:
        dataset: What to get.
        data_dir: Folder of all datasets; the dataset goes into ``data_dir / dataset.folder``.

    Returns:
        The folder of the dataset.

    Raises:
        DataError: one sentence with what happened and what to do.
        MissingExtraError: the extra `kaggle` is not installed.
    """
    target, archive = data_dir / dataset.folder, data_dir / dataset.archive_name
    with _disk_errors_told(data_dir), _alone(dataset, data_dir):
        if not missing_proof(dataset, target):
            return target
        obstacle = _obstacle(dataset, target)
        if obstacle is not None:
            raise DataError(
                f"{target} is {obstacle}; move it away and repeat the command, with --out or CXR_DATA_DIR for another "
                "place"
            )
        if not archive.exists():
            _download(dataset, archive)
        _install(dataset, archive, target)
    return target


def _download(dataset: Dataset, archive: Path) -> None:
    require_extra("kagglesdk", "kaggle")
    import requests

    login = find_login()
    if login is None and dataset.kind == "competition":
        raise DataError(f"{dataset.slug} needs a Kaggle account, found no credentials; {HOW_TO_LOG_IN}, {BY_HAND}")
    try:
        with KaggleApi(login) as kaggle:
            listed = kaggle.listed_bytes(dataset)
            expected = dataset.extracted_bytes if listed is None else listed
            response = kaggle.open_archive(dataset)
            to_come = bytes_to_come(RemoteFile.from_response(response), archive)
            require_space(archive.parent, expected + (dataset.archive_bytes if to_come is None else to_come))
            fetch(response, partial(kaggle.open_archive, dataset), kaggle.continue_archive, archive)
            _write_note(archive, expected)
    except requests.RequestException as error:
        raise explain_refusal(error, dataset, login) from error


def _install(dataset: Dataset, archive: Path, target: Path) -> None:
    """Unpack `archive` beside `target` and rename; an archive that was downloaded here is then deleted."""
    half_made = target.with_name(f"{target.name}.partial")
    shutil.rmtree(half_made, ignore_errors=True)
    try:
        extract_archive(archive, half_made, _max_bytes(dataset, archive), dataset.archive_root, dataset.skip)
        missing = missing_proof(dataset, half_made)
        if missing:
            raise DataError(
                f"{archive} holds no {missing[0]}, so it is not {dataset.slug} as this version knows it; compare with "
                f"{dataset.page} and data/README.md"
            )
        if target.exists():
            target.rmdir()
        half_made.rename(target)
    finally:
        shutil.rmtree(half_made, ignore_errors=True)
    if _read_note(archive):
        archive.unlink()
    _note_path(archive).unlink(missing_ok=True)
    PartialFile(archive).discard()


def _note_path(archive: Path) -> Path:
    """Beside an archive that was downloaded here: the announced size of its content, and when the file was finished."""
    return archive.with_name(f"{archive.name}.json")


def _write_note(archive: Path, announced: int) -> None:
    note = {"announced_bytes": announced, "finished_ns": archive.stat().st_mtime_ns}
    _note_path(archive).write_text(json.dumps(note))


def _read_note(archive: Path) -> dict[str, int]:
    """The note of this very file; empty for one that was put there by hand, also in the place of a downloaded one."""
    try:
        note: dict[str, int] = json.loads(_note_path(archive).read_text())
        return note if note["finished_ns"] == archive.stat().st_mtime_ns else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _max_bytes(dataset: Dataset, archive: Path) -> int:
    """Twice the content that Kaggle or the catalogue announced: more is no dataset, but an attack."""
    return 2 * max(_read_note(archive).get("announced_bytes", 0), dataset.extracted_bytes)


@contextmanager
def _alone(dataset: Dataset, data_dir: Path) -> Iterator[None]:
    """Let no second process fetch the same dataset."""
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(data_dir / f".{dataset.folder}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DataError(
            f"another process is fetching {dataset.name} into {data_dir}; wait for it or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DataError(
                f"the disk of {folder} is full; make room, or choose a folder on another disk with --out or "
                "CXR_DATA_DIR, and repeat the command: it continues where it stopped"
            ) from error
        raise DataError(
            f"{folder} cannot be used ({error}); choose a writable folder with --out or CXR_DATA_DIR"
        ) from error


def _login_state(dataset: Dataset) -> str:
    try:
        login = find_login()
    except DataError as error:
        return str(error)
    if login is not None:
        return f"found: {login.source}"
    return (
        f"none found; {HOW_TO_LOG_IN}" if dataset.kind == "competition" else "none found; not needed for this dataset"
    )


def _obstacle(dataset: Dataset, target: Path) -> str | None:
    """What lies where a dataset should be put, if it is in the way."""
    if target.is_symlink():
        return f"a link to {target.readlink()}, where the dataset is not complete"
    if target.exists() and not target.is_dir():
        return "a file, expected a folder or nothing"
    if target.exists() and any(target.iterdir()):
        return f"incomplete: it is not empty and lacks {missing_proof(dataset, target)[0]}"
    return None


def _state(dataset: Dataset, data_dir: Path) -> str:
    target, archive = data_dir / dataset.folder, data_dir / dataset.archive_name
    if not missing_proof(dataset, target):
        return "complete"
    obstacle = _obstacle(dataset, target)
    if obstacle is not None:
        return obstacle
    part = archive.with_name(f"{archive.name}.part")
    if archive.exists():
        return f"{archive} is there and will be unpacked"
    return f"{format_size(part.stat().st_size)} of the archive" if part.exists() else "nothing yet"
