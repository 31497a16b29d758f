"""What an ensemble is made of: runs or cross-validated recipes, and what they say of rows that none of them learnt.

Knows nothing of how predictions are combined. Not guaranteed: that the rows were never looked at; a run's epoch was
chosen on its validation part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr.data.samples import list_first
from cxr.data.splits import SPLIT_FILE
from cxr.errors import ConfigError, DataError
from cxr.evaluation.predictions import read_predictions
from cxr.inference.combine import order_classes

Floats = npt.NDArray[np.float64]

POOLED = "oof"
"""The part of a cross-validation: every row by the net of the fold that did not learn it."""
_KEYS = {POOLED: ["run", "sample_id"]}


@dataclass(frozen=True)
class Member:
    """One model among others.

    Attributes:
        name: For people.
        runs: The run folders whose nets answer together: one, or those of all folds.
        class_names: The K names in its own order.
        tables: Part -> predictions of rows that no net asked had learnt.
    """

    name: str
    runs: Sequence[Path]
    class_names: list[str]
    tables: Mapping[str, pd.DataFrame]

    @property
    def bundles(self) -> list[Path]:
        """The bundles of its nets."""
        return [run / "bundle" for run in self.runs]


@dataclass(frozen=True)
class Rows:
    """What M members say of the same N rows.

    Attributes:
        table: The predictions of the first member, which say who and what the rows are.
        probs: (M, N, K), classes in the order of the first member.
    """

    table: pd.DataFrame
    probs: Floats

    @property
    def target(self) -> npt.NDArray[np.int64]:
        """(N,) class indices."""
        return self.table["target"].to_numpy(np.int64)

    def of_members(self, chosen: npt.ArrayLike) -> "Rows":
        """The same rows by some of the members."""
        return Rows(self.table, self.probs[np.asarray(chosen)])

    def of_rows(self, chosen: npt.NDArray[np.bool_]) -> "Rows":
        """Some of the rows."""
        return Rows(self.table[chosen], self.probs[:, chosen])


def read_run(folder: Path, name: str) -> Member:
    """A finished run, or an ensemble of such.

    Raises:
        DataError: It is not finished, has several targets, or predicted rows that it learnt.
    """
    if list(folder.glob("predictions_val_*.csv")) and not (folder / "predictions_val.csv").exists():
        raise DataError(f"expected runs with one class per image, but {folder} has several targets; use it by itself")
    tables: dict[str, pd.DataFrame] = {}
    class_names: list[str] = []
    for part in ("val", "test"):
        if part == "val" or (folder / f"predictions_{part}.csv").exists():
            tables[part], class_names = read_predictions(folder / f"predictions_{part}.csv")
            check_unseen(folder, tables[part], part)
    return Member(name, [folder], class_names, tables)


def read_recipe(folder: Path, name: str) -> Member:
    """A finished cross-validation: its nets answer together, its pooled predictions say what one of them is worth.

    Raises:
        DataError: It is not finished, has several targets, or a net predicted rows that it learnt.
    """
    table, class_names = read_predictions(folder / f"predictions_{POOLED}.csv")
    runs = [folder / str(run) for run in table["run"].unique()]
    for run in runs:
        check_unseen(run, table[table["run"] == run.name], "test")
    return Member(name, runs, class_names, {POOLED: table})


def check_unseen(run: Path, table: pd.DataFrame, part: str) -> None:
    """Raise DataError unless all rows of a table lie in this part of a run's split."""
    try:
        split = pd.read_csv(run / SPLIT_FILE, dtype=str, usecols=["sample_id", "split"], keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"expected the split of the run in {run / SPLIT_FILE}, got {error}; without it nobody knows what it learnt"
        ) from error
    elsewhere = int((table["sample_id"].map(split.set_index("sample_id")["split"]) != part).sum())
    if elsewhere:
        raise DataError(
            f"expected predictions for the part {part} of {run}, but {elsewhere} rows are not in that part of its "
            "split, so the net may have learnt them; use the predictions that the run wrote"
        )


def align(members: Sequence[Member]) -> dict[str, Rows]:
    """What the members say of the rows of each part that all of them have, rows and classes in the first one's order.

    Raises:
        DataError: Rows or targets that differ.
        ConfigError: Class names that differ in more than their order.
    """
    first = members[0]
    parts = [part for part in first.tables if all(part in member.tables for member in members)]
    return {part: _align_part(members, part) for part in parts}


def _align_part(members: Sequence[Member], part: str) -> Rows:
    first = members[0].tables[part]
    told = [_in_order(member, members[0], part) for member in members]
    for member, (target, _) in zip(members, told, strict=True):
        differing = int((target != first["target"].to_numpy()).sum())
        if differing:
            raise DataError(
                f"expected one truth for each image, but {members[0].name} and {member.name} have other classes for "
                f"{differing} images of {part}; combine runs on the same labels"
            )
    return Rows(first.reset_index(drop=True), np.stack([probs for _, probs in told]))


def _in_order(member: Member, first: Member, part: str) -> tuple[npt.NDArray[np.int64], Floats]:
    """Targets (N,) and probabilities (N, K) of a member, rows and classes as the first one has them."""
    try:
        (columns,) = order_classes("soft", first.class_names, [member.class_names])
    except ConfigError as error:
        raise ConfigError(f"{member.name}: {error}") from error
    keys = _KEYS.get(part, ["sample_id"])
    wanted, own = (pd.MultiIndex.from_frame(one.tables[part][keys]) for one in (first, member))
    place = own.get_indexer(wanted)
    if (place < 0).any() or len(own) != len(wanted):
        unknown = wanted[place < 0].append(own[~own.isin(wanted)])
        raise DataError(
            f"expected the same rows of {part} in all members, but {first.name} and {member.name} differ in "
            f"{len(unknown)}, such as {list_first([str(key[-1]) for key in unknown])}; combine runs on one split "
            "(data.split_file), or recipes on the same folds"
        )
    table = member.tables[part].iloc[place]
    probs = table[[f"prob_{k}" for k in columns]].to_numpy(np.float64)
    return np.argsort(columns)[table["target"].to_numpy(np.int64)], probs
