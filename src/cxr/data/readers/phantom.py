"""The synthetic cohort that comes with the project, made on first use, as a table of samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.data.readers.siim import make_siim_samples


def make_phantom_samples(root: str | Path, *, cohort: Mapping[str, Any]) -> pd.DataFrame:
    """Make the cohort unless it is there, and read it as SIIM data are read.

    Args:
        root: Folder of the cohort; written when absent or when it holds another phantom cohort.
        cohort: Settings of `CohortSpec`, by name.

    Returns:
        The table of `make_siim_samples` with `source` and what only phantoms know: `d_prime` and `gives_class_away`,
        of which `best_achievable_auroc` is made.

    Raises:
        ConfigError: Settings that no cohort has.
        DataError: The folder holds something else.
        MissingExtraError: An encoder is not installed.
    """
    from cxr.data.phantoms.spec import CohortSpec
    from cxr.data.phantoms.tree import ensure_phantom_cohort, read_truth

    ensure_phantom_cohort(root, CohortSpec.from_dict(dict(cohort)))
    samples = make_siim_samples(root)
    truth = read_truth(root)[["image_path", "source", "d_prime", "gives_class_away"]]
    return samples.merge(truth, on="image_path", validate="one_to_one")
