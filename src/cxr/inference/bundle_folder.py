"""Where the bundle of a run lies, and which one it is. Knows nothing of what is in it."""

import hashlib
from pathlib import Path

from cxr.errors import WeightsError
from cxr.inference.description import DESCRIPTION

PLACES = ("export", "bundle")
"""Folders of a run with a bundle, the best to predict with first."""


def find_bundle(folder: Path) -> Path:
    """The bundle that a folder is, or that a run folder holds.

    Raises:
        WeightsError: There is none.
    """
    for place in (folder, *(folder / name for name in PLACES)):
        if (place / DESCRIPTION).is_file():
            return place
    raise WeightsError(f"expected a bundle or a run folder with one, got {folder}; give the folder 'bundle' of a run")


def bundle_version(bundle: Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of bundle.json, which names the checksums of all other files.

    Raises:
        OSError: It cannot be read.
    """
    return hashlib.sha256((bundle / DESCRIPTION).read_bytes()).hexdigest()[:12]
