"""Where the bundle of a run lies, which one it is, and of which one it was made. Knows nothing else that is in it."""

import hashlib
from pathlib import Path

from cxr.errors import WeightsError
from cxr.inference.description import DESCRIPTION, read_description

BUNDLE, EXPORT = "bundle", "export"
"""Folders of a run with a bundle: as training wrote it, and with graphs, the better one to predict with.

In bundle.json of the second, ``export`` is what was measured of it, and in that ``bundle`` the version of the first.
"""


def find_bundle(folder: Path) -> Path:
    """The bundle that a folder is, or that a run folder holds: its export where there is one.

    Raises:
        WeightsError: There is none, or the export is not of the bundle that the run has now.
    """
    bundle, export = folder / BUNDLE, folder / EXPORT
    found = [place for place in (folder, export, bundle) if (place / DESCRIPTION).is_file()]
    if not found:
        raise WeightsError(
            f"expected a bundle or a run folder with one, got {folder}; give the folder 'bundle' of a run"
        )
    if found == [export, bundle] and exported_version(export) != bundle_version(bundle):
        raise WeightsError(
            f"expected {export} to be made from {bundle}, which was written anew since, as when a run goes on or is "
            f"tested; make it again by cxr export {folder}, or give the one of the two that you mean"
        )
    return found[0]


def bundle_version(bundle: Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of bundle.json, which names the checksums of all other files.

    Raises:
        OSError: It cannot be read.
    """
    return hashlib.sha256((bundle / DESCRIPTION).read_bytes()).hexdigest()[:12]


def exported_version(export: Path) -> str | None:
    """The `bundle_version` of what a bundle was exported from; None where it does not say.

    Raises:
        WeightsError: It is damaged.
    """
    told = read_description(export).get(EXPORT)
    return told.get(BUNDLE) if isinstance(told, dict) else None
