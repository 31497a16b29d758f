"""Folds for cross-validation, once or several times over: patients stay whole, findings stay in proportion.

Knows nothing of files, images or training, and never puts a sample of an official test part into a fold. Groups are
divided as `make_split` divides them; scikit-learn's StratifiedGroupKFold holds the same laws but bounds no fold's size
and takes minutes for 100,000 groups.
"""

import pandas as pd

from cxr.data.splits import carve, groups_of
from cxr.errors import ConfigError, DataError


def make_folds(samples: pd.DataFrame, folds: int, seed: int, *, repeats: int = 1) -> pd.DataFrame:
    """Divide the samples into folds by whole groups, findings in proportion, whatever their row order.

    Args:
        samples: A table of the gate; groups come from its column `group`, else from `make_groups`.
        folds: Number of folds, 2 or more. The size of each is within the largest group of its share.
        seed: Decides which groups go where, in each repeat anew.
        repeats: How often to divide, 1 or more.

    Returns:
        One int64 column per repeat, named 0, 1, ..., with the fold 0 to `folds` - 1 of each row that is neither in an
        official test part nor in a group with a row that is.

    Raises:
        ConfigError: Fewer than two folds or than one repeat.
        DataError: There are fewer groups than folds.
    """
    if folds < 2 or repeats < 1:
        raise ConfigError(f"expected 2 folds or more and 1 repeat or more, but got {folds} and {repeats}")
    ordered = samples.sort_values("sample_id")
    groups = pd.Series(pd.factorize(groups_of(ordered))[0], index=ordered.index)
    if "split" in ordered:
        ordered = ordered[~groups.isin(groups[ordered["split"] == "test"])]
    groups = groups[ordered.index]
    if groups.nunique() < folds:
        raise DataError(
            f"expected at least {folds} groups of linked patients for {folds} folds, but there are {groups.nunique()} "
            "outside the official test part; ask for fewer folds, add data, or check the patient ids"
        )
    columns = {repeat: carve(ordered, groups, [1.0] * folds, [seed, repeat]) for repeat in range(repeats)}
    table = pd.DataFrame(columns, index=ordered.index)
    return table.reindex(samples.index[samples.index.isin(table.index)])
