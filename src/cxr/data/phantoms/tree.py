"""Phantom cohorts on disk: the SIIM tree and the image folder, written whole or not at all. Draws nothing itself.

A cohort is written into a hidden folder beside its place and renamed at the end; a killed run leaves nothing that looks
like a cohort. `phantom.json` holds the settings, so that a cohort is made again only when they change, and marks the
folder as one that may be replaced.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from cxr.data.phantoms.findings import CLASS_NAMES
from cxr.data.phantoms.job import LAYOUTS, Job
from cxr.data.phantoms.layouts import TRUTH, write_layout
from cxr.data.phantoms.spec import CohortSpec
from cxr.errors import ConfigError, DataError, require_extra

MARKER = "phantom.json"
_OWN = {MARKER, TRUTH, "train", "test", "train_study_level.csv", "train_image_level.csv", *CLASS_NAMES}
_GENERATOR = "cxr-lab phantom"
_VERSION = 1  # of what is drawn and written; raise it to make cohorts anew
_ENCODERS = {"jpeg2000": "openjpeg", "jpegls": "jpeg_ls"}


def write_siim_cohort(spec: CohortSpec, out: Path | str, workers: int | None = None) -> None:
    """Write a cohort as the SIIM-FISABIO-RSNA training data lie on disk.

    `train/<study>/<series>/<image>.dcm`, `train_study_level.csv`, `train_image_level.csv`, and the truth in
    `phantom_truth.csv`.

    Args:
        spec: The cohort.
        out: Folder that is absent, empty, or holds a phantom cohort, which is replaced.
        workers: Processes; None takes one per CPU. The bytes do not depend on it.

    Raises:
        DataError: `out` holds something else or cannot be written.
        MissingExtraError: An encoder of `spec.encodings` is not installed.
    """
    _write(spec, Path(out), "siim", 0.0, workers, reuse=False)


def write_folder_cohort(
    spec: CohortSpec, out: Path | str, workers: int | None = None, test_fraction: float = 0.0
) -> None:
    """Write the first image of every study as `<class name>/<id>.png`, 8 bits, and the truth in `phantom_truth.csv`.

    Args:
        spec: The cohort.
        out: As in `write_siim_cohort`.
        workers: As in `write_siim_cohort`.
        test_fraction: Above 0, that share of the patients goes to `test/<class name>`, the others to `train/…`.

    Raises:
        DataError: `out` holds something else or cannot be written.
        ConfigError: `test_fraction` is not a share below 1.
    """
    if not 0 <= test_fraction < 1:
        raise ConfigError(f"expected test_fraction from 0 to below 1, but got {test_fraction}; give it as a share")
    _write(spec, Path(out), "folder", test_fraction, workers, reuse=False)


def ensure_phantom_cohort(root: Path | str, spec: CohortSpec, layout: str = "siim", workers: int | None = None) -> None:
    """Write the cohort unless `root` already holds exactly it; see the two writers."""
    if layout not in LAYOUTS:
        raise ConfigError(f"expected a phantom layout out of {list(LAYOUTS)}, but got {layout!r}; name one of them")
    _write(spec, Path(root), layout, 0.0, workers, reuse=True)


def read_truth(root: Path | str) -> pd.DataFrame:
    """The truth of a phantom cohort, one row per image, with the absolute `image_path` of each.

    Columns: `image_id, study_id, patient_id, path` (relative), `class_name, view, image_number, sex, age, source,
    gives_class_away, findings` and `visibility` (one for each finding, joined by ;), `d_prime` (see `ceiling`),
    `boxes` (count), `duplicate_kind` ('', 'exact' or 'near'), `duplicate_of` (study id).

    Raises:
        DataError: There is no phantom cohort in `root`.
    """
    path = Path(root) / TRUTH
    if not path.is_file():
        raise DataError(
            f"expected a phantom cohort with {TRUTH} in {root}, but found none; make one with scripts/make_phantoms.py"
        )
    text = dict.fromkeys(["findings", "visibility", "duplicate_kind", "duplicate_of", "image_id", "study_id"], str)
    truth = pd.read_csv(path, dtype=text, keep_default_na=False)
    truth["image_path"] = [str(Path(root).absolute() / relative) for relative in truth["path"]]
    return truth


def _write(spec: CohortSpec, out: Path, layout: str, test_fraction: float, workers: int | None, reuse: bool) -> None:
    """Check and write; no other process may write the same place meanwhile."""
    out = out.absolute()
    settings = {
        "generator": _GENERATOR,
        "version": _VERSION,
        "layout": layout,
        "test_fraction": test_fraction,
        "spec": spec.to_dict(),
    }
    lock = out.parent / f".{out.name}.lock"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()  # where no file can be made, the lock itself would wait for ever
        with FileLock(lock):
            if reuse and _read_marker(out) == settings:
                return
            _check_replaceable(out)
            if layout == "siim":
                for encoding in sorted(set(spec.encodings) & set(_ENCODERS)):
                    require_extra(_ENCODERS[encoding], "phantoms")
            _replace(
                out,
                Job(spec, out.parent / f".{out.name}.partial-{os.getpid()}", layout, test_fraction),
                settings,
                workers,
            )
    except OSError as error:
        raise DataError(
            f"expected to write phantoms for {out}, but: {error}; free disk space or name another folder"
        ) from error


def _replace(out: Path, job: Job, settings: dict[str, Any], workers: int | None) -> None:
    """Draw into a hidden sibling and swap it in."""
    old = out.parent / f".{out.name}.old"
    for leftover in (*out.parent.glob(f".{out.name}.partial-*"), old):
        shutil.rmtree(leftover, ignore_errors=True)
    job.root.mkdir()
    write_layout(job, workers)
    (job.root / MARKER).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if out.exists():
        out.rename(old)
    job.root.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(out: Path) -> None:
    """Only an absent or empty folder or a phantom cohort may be written over."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"expected a folder for the phantom cohort, but {out} is a file; name another place")
    found = {path.name for path in out.iterdir()}
    if found and (_read_marker(out) is None or not found <= _OWN):
        raise DataError(
            f"expected {out} to be absent, empty or a phantom cohort, but it holds other files; "
            "name another folder or empty this one yourself"
        )


def _read_marker(out: Path) -> dict[str, Any] | None:
    """The settings of the phantom cohort in a folder, or None if it holds none."""
    try:
        settings = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(settings, dict) and settings.get("generator") == _GENERATOR
    return settings if is_ours else None
