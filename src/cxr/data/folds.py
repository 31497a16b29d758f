"""Folds for cross-validation, once or several times over: patients stay whole, findings stay in proportion.

Knows nothing of files, images or training, and never puts a sample of an official test part into a fold.
"""

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from cxr.data.splits import groups_of
from cxr.errors import ConfigError, DataError


def make_folds(samples: pd.DataFrame, folds: int, seed: int, *, repeats: int = 1) -> pd.DataFrame:
    """Divide the samples into folds by whole groups, findings in proportion, whatever their row order.

    The time grows with the number of groups, about 15 seconds for 100,000.

    Args:
        samples: A table of the gate; groups come from its column `group`, else from `make_groups`.
        folds: Number of folds, 2 or more.
        seed: Decides which groups go where, in each repeat anew.
        repeats: How often to divide, 1 or more.

    Returns:
        One int64 column per repeat, named 0, 1, ..., with the fold 0 to `folds` - 1 of each row that is neither in an
        official test part nor in a group with a row that is.

    Raises:
        ConfigError: Fewer than two folds or than one repeat.
        DataError: A fold would be empty.
    """
    if folds < 2 or repeats < 1:
        raise ConfigError(f"expected 2 folds or more and 1 repeat or more, but got {folds} and {repeats}")
    ordered = samples.sort_values("sample_id")
    groups = pd.Series(pd.factorize(groups_of(ordered))[0], index=ordered.index)
    if "split" in ordered:
        ordered = ordered[~groups.isin(groups[ordered["split"] == "test"])]
    groups = groups[ordered.index]
    states = np.random.SeedSequence(seed).generate_state(repeats)
    columns = {repeat: _divide(ordered["finding"], groups, folds, int(state)) for repeat, state in enumerate(states)}
    return pd.DataFrame(columns).reindex(samples.index[samples.index.isin(ordered.index)])


def _divide(findings: pd.Series, groups: pd.Series, folds: int, seed: int) -> pd.Series:
    """Fold of each row."""
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    try:
        parts = [test for _, test in splitter.split(findings, findings, groups)]
    except ValueError:  # fewer rows of every finding, or fewer groups, than folds
        parts = [np.array([])]
    if not all(map(len, parts)):
        raise DataError(
            f"expected samples in each of {folds} folds, but there are {len(findings)} samples in {groups.nunique()} "
            "groups of linked patients outside the official test part, the commonest finding "
            f"{findings.value_counts().max()} times; ask for fewer folds, add data, or check the patient ids"
        )
    numbers = np.repeat(np.arange(folds), [len(rows) for rows in parts])
    return pd.Series(numbers, index=findings.index[np.concatenate(parts)]).reindex(findings.index)
