"""Which samples train, validate and test: patients stay whole, findings stay in proportion, and one seed decides.

Knows nothing of files, images or sampling. What two given parts share is for the leak gate (`leaks/`) to find.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxr.data.allocation import allocate
from cxr.data.identity import hash_ids
from cxr.data.samples import PARTS, label_columns, list_first
from cxr.errors import ConfigError, DataError

SPLIT_FILE = "split.csv"
"""Name of the file in a run folder, see `write_split`."""
FEW_PATIENTS = 100
GROUP_KEYS = ("patient_id", "study_id", "sop_instance_uid", "content_hash")
_EXPECTED_ACCURACY = 0.8
_Z_95 = 1.959964


def make_groups(samples: pd.DataFrame, keys: Sequence[str] = GROUP_KEYS) -> pd.Series:
    """Number the groups that must not be divided: rows linked by patient, study, image or bytes, also in a chain.

    Args:
        samples: Table with any of `keys`; a missing value links nothing.
        keys: Columns in which equal values link.

    Returns:
        int64 group of each row, numbered by first appearance.
    """
    rows, values, offset = [], [], len(samples)
    for key in (key for key in keys if key in samples):
        codes, distinct = pd.factorize(samples[key])
        rows.append(np.flatnonzero(codes >= 0))
        values.append(codes[codes >= 0] + offset)
        offset += len(distinct)
    edges = (np.concatenate([*rows, []]).astype(np.int64), np.concatenate([*values, []]).astype(np.int64))
    graph = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(offset, offset))
    _, components = connected_components(graph, directed=False)
    return pd.Series(pd.factorize(components[: len(samples)])[0], index=samples.index, name="group", dtype="int64")


def make_split(samples: pd.DataFrame, fractions: Sequence[float], seed: int) -> pd.Series:
    """Divide the samples into train, val and test by whole groups, findings in proportion, whatever their row order.

    Official parts in the column `split` are kept, whatever they share: rows of an official test (or val) part stay
    there, and the parts that the dataset does not have are carved from the other rows, in the ratio of their fractions.

    Args:
        samples: A table of the gate; groups come from its column `group`, else from `make_groups`.
        fractions: Shares of (train, val, test), 0 to 1, summing to 1. The size of each carved part is within the
            largest group of its share.
        seed: Decides which groups go where.

    Returns:
        'train', 'val' or 'test' for each row.

    Raises:
        ConfigError: `fractions` are not three shares that sum to 1.
        DataError: A part would be empty.
    """
    shares = _check_fractions(fractions)
    ordered = samples.sort_values("sample_id")
    groups = pd.Series(pd.factorize(groups_of(ordered))[0], index=ordered.index)
    official = ordered["split"] if "split" in ordered else pd.Series("train", index=ordered.index)
    is_given = official.isin(["val", "test"])
    split = official.where(is_given, "train")
    pool = ordered[~is_given]
    carved = {part: shares[part] for part in PARTS if shares[part] > 0 and part not in set(official[is_given])}
    if len(pool) and sum(carved.values()) > 0:
        split[pool.index] = _carve(pool, groups[pool.index], carved, seed)
    _require_parts(split, groups)
    return split.reindex(samples.index).rename("split")


def write_split(samples: pd.DataFrame, path: Path, *, class_names: Sequence[str], salt: str | None) -> None:
    """Write who is in which part, one row per sample: `sample_id, patient_id, split`, then `label, class` or targets.

    Args:
        samples: Table with `sample_id`, `split`, `label` or targets and, where known, `patient_id`.
        path: The CSV file; it is replaced whole or not at all.
        class_names: Names of the labels.
        salt: The ids are written as hashes with this salt; None writes them as they are.
    """
    blank = pd.Series(None, index=samples.index, dtype=object)
    ids = {"sample_id": samples["sample_id"], "patient_id": samples.get("patient_id", blank)}
    if salt is not None:
        ids = {name: hash_ids(values, salt) for name, values in ids.items()}
    labels = samples[label_columns(samples)]
    table = pd.DataFrame({**ids, "split": samples["split"]}).join(labels)
    if "label" in labels:
        table["class"] = [class_names[label] for label in labels["label"]]
    draft = path.with_name(f"{path.name}.draft")
    table.to_csv(draft, index=False)
    draft.replace(path)


def read_split(samples: pd.DataFrame, path: Path, *, salt: str | None) -> pd.Series:
    """Read a split that `write_split` wrote, with hashed or plain ids.

    The file says which samples are used: samples that it does not name are left out.

    Args:
        samples: Table with `sample_id`.
        path: The CSV file, or any other with the columns `sample_id` and `split`.
        salt: The salt with which the ids may be hashed; None if they are plain.

    Returns:
        'train', 'val' or 'test' for each row that the file names.

    Raises:
        DataError: No such file, not such a table, or it names samples that are not in `samples`.
    """
    parts = _read_parts(path)
    keys = samples["sample_id"]
    if salt is not None and not keys.isin(parts.index).any():
        keys = hash_ids(keys, salt)
    unknown = parts.index[~parts.index.isin(keys)]
    if len(unknown):
        raise DataError(
            f"expected the data to hold all {len(parts)} samples of {path}, but {len(unknown)} are not there: "
            f"{list_first(unknown)}; use the data, data.view_filter, data.avoid and salt (CXR_ID_SALT) with which it "
            "was written"
        )
    return keys.map(parts).dropna().rename("split")


def _read_parts(path: Path) -> pd.Series:
    """sample id -> part."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=["sample_id", "split"])
    except (OSError, ValueError) as error:
        raise DataError(
            f"expected a split with the columns sample_id and split in {path}, but got: {error}; check data.split_file"
        ) from error
    wrong = sorted(repr(part) for part in set(table["split"]) - set(PARTS))
    twice = table.loc[table["sample_id"].duplicated(), "sample_id"]
    if wrong or len(twice):
        raise DataError(
            f"expected each sample once in {path}, as {', '.join(PARTS)}, but {len(twice)} are repeated "
            f"({list_first(twice)}) and these are no parts: {list_first(wrong)}; mend or rewrite the file"
        )
    return table.set_index("sample_id")["split"]


def groups_of(samples: pd.DataFrame) -> pd.Series:
    """The column `group`, which knows links through rows that were filtered out, else `make_groups`."""
    return samples["group"] if "group" in samples else make_groups(samples)


def interval_width(patients: int, accuracy: float = _EXPECTED_ACCURACY) -> float:
    """Width of the 95% Wilson interval of an accuracy measured on so many patients (Wilson 1927)."""
    spread = accuracy * (1 - accuracy) / patients + _Z_95**2 / (4 * patients**2)
    return 2 * _Z_95 * math.sqrt(spread) / (1 + _Z_95**2 / patients)


def warn_if_few(patients: int) -> None:
    """Warn if the test part is too small to tell much."""
    if patients < FEW_PATIENTS:
        warnings.warn(
            f"the test part has {patients} patients: expect 95% intervals about {interval_width(patients):.2f} wide "
            f"around an accuracy of {_EXPECTED_ACCURACY}; {FEW_PATIENTS} patients or more tell more",
            stacklevel=2,
        )


def _check_fractions(fractions: Sequence[float]) -> dict[str, float]:
    try:
        shares = [float(share) for share in fractions]
    except (TypeError, ValueError):
        shares = []
    if len(shares) == len(PARTS) and min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6:
        return dict(zip(PARTS, shares, strict=True))
    raise ConfigError(
        "expected data.fractions to be three shares (train, val, test) from 0 to 1 that sum to 1, "
        f"but got {fractions}; write 70/20/10 percent as [0.7, 0.2, 0.1]"
    )


def _carve(pool: pd.DataFrame, groups: pd.Series, shares: dict[str, float], seed: int) -> npt.NDArray[np.object_]:
    """Part of each row of the pool, sorted by sample id."""
    group_codes, group_names = pd.factorize(groups)
    finding_codes, findings = pd.factorize(pool["finding"], sort=True)
    cells = np.bincount(group_codes * len(findings) + finding_codes, minlength=len(group_names) * len(findings))
    fractions = np.array(list(shares.values())) / sum(shares.values())
    parts = allocate(cells.reshape(len(group_names), len(findings)), fractions, np.random.default_rng(seed))
    return np.array(list(shares), dtype=object)[parts[group_codes]]


def _require_parts(split: pd.Series, groups: pd.Series) -> None:
    empty = [part for part in PARTS if not (split == part).any()]
    if empty:
        sizes = groups.value_counts()
        raise DataError(
            f"expected samples in train, val and test, but {list_first(empty)} would be empty: there are {len(groups)} "
            f"samples in {len(sizes)} groups of linked patients, the largest of {sizes.max()}; "
            "add data, raise the fraction of that part, or check the patient ids"
        )
