"""Files that give no image: listed for the data's owner, then left out and counted, or refused.

Knows nothing of why a file gives none, or of what its images are for.
"""

import logging
from pathlib import Path

import pandas as pd

from cxr.data.owner_lists import write_list
from cxr.data.samples import list_first
from cxr.errors import DataError

log = logging.getLogger(__name__)


def report_bad_files(
    samples: pd.DataFrame, errors: pd.Series, on_bad_file: str, list_folder: Path, problem: str
) -> dict[str, int]:
    """Raise or count, and list all of them in a file of its own; the counts name no file, since paths may hold ids.

    Args:
        samples: Rows with `image_path`.
        errors: What is wrong with each row's file, by the same index; null where nothing is.
        on_bad_file: 'error' raises, 'skip' counts.
        list_folder: Takes the list; not a run folder.
        problem: What the files do wrong, in words that follow "files".

    Returns:
        `count`.

    Raises:
        DataError: There are some and they are not to be skipped, or no file is left.
    """
    bad = errors.dropna()
    if bad.empty:
        return {"count": 0}
    listed = write_list(samples.loc[bad.index, ["image_path"]].assign(error=bad), list_folder, "bad-files")
    if on_bad_file == "skip" and len(bad) < len(samples):
        log.warning("left out %d of %d files that %s; all are in %s", len(bad), len(samples), problem, listed)
        return {"count": len(bad)}
    remedy = "mend the files" if len(bad) == len(samples) else "mend them, or leave them out with data.on_bad_file=skip"
    raise DataError(
        f"expected {len(samples)} image files, but {len(bad)} of them {problem}; {remedy} (all are in {listed}): "
        f"{list_first(bad)}"
    )
