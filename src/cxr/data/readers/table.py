"""Any CSV or Parquet table with one row per image -> a table of samples.

Knows nothing of what the labels mean, of classes and of splits that are carved later; opens no image and does not look
whether the files exist.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.data.readers.image_folder import PART_NAMES
from cxr.data.samples import TARGET_PREFIX, list_first
from cxr.errors import DataError, require_extra

COLUMNS = (
    "sample_id", "image_path", "finding", "patient_id", "study_id", "split", "view_position", "source", "sex", "age",
    "manufacturer",
)  # fmt: skip
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")


def make_table_samples(
    path: str | Path,
    *,
    columns: Mapping[str, str | None],
    targets: Sequence[str] = (),
    root: str | Path | None = None,
) -> pd.DataFrame:
    """Read a table of images.

    Args:
        path: A .csv or .tsv file (also .gz), or .parquet.
        columns: Which column of the table is which of `COLUMNS`. Those that are not named here are taken where the
            table has them under their own name; null takes none. `image_path` and, unless there are `targets`,
            `finding` are needed.
        targets: Columns that are targets of a multi-label table: 1, 0, or nothing where not stated.
        root: Folder that relative image paths start from; None for the folder of the table.

    Returns:
        One row per row of the table with `sample_id` (unless the table has one: the image path as written),
        `image_path`, and of `COLUMNS` those that there are; `split` may say valid or validation for val, in any case.
        With `targets` no `finding` but a column `target_<name>` for each.

    Raises:
        DataError: No such file, not such a table, or a column that it does not have.
        MissingExtraError: A Parquet file without the extra.
    """
    path = Path(path).absolute()
    chosen = _choose_columns(_read_table(path, _list_columns), columns, targets, path)
    wanted = list(dict.fromkeys(chosen.values()))
    table = _read_table(path, lambda path: _read_columns(path, wanted, targets))
    samples = table[list(chosen.values())].set_axis(list(chosen), axis="columns")
    names = samples["image_path"].astype("str").str.strip().where(samples["image_path"].notna())
    folder = str(path.parent if root is None else Path(root).absolute())
    samples["image_path"] = names.map(lambda name: os.path.join(folder, name), na_action="ignore")  # noqa: PTH118 - fast
    if "sample_id" not in samples:
        samples.insert(0, "sample_id", names)
    if "split" in samples:
        written = samples["split"].astype("str").str.strip()
        samples["split"] = written.str.lower().map(PART_NAMES).fillna(written).where(samples["split"].notna())
    if "age" in samples:
        samples["age"] = pd.to_numeric(samples["age"], errors="coerce")
    return samples


def _read_table(path: Path, read: Callable[[Path], Any]) -> Any:
    """Call `read`, with what can go wrong as an error of one sentence."""
    if not path.is_file():
        raise DataError(
            f"expected a table of images at {path}, but there is no such file; point data.path at a .csv, .tsv or "
            ".parquet file, or try phantoms, without any download: data=phantom"
        )
    if not _is_parquet(path) and _find_separator(path) is None:
        raise DataError(f"expected a table that ends in .csv, .tsv or .parquet, but got {path}; convert or rename it")
    try:
        return read(path)
    except (ValueError, OSError) as error:
        raise DataError(f"expected a table of images in {path}, but it cannot be read: {error}; mend it") from error


def _list_columns(path: Path) -> list[str]:
    if _is_parquet(path):
        require_extra("pyarrow", "parquet")
        from pyarrow.parquet import read_schema

        return list(read_schema(path).names)
    return [str(name) for name in pd.read_csv(path, sep=_find_separator(path), nrows=0).columns]


def _read_columns(path: Path, columns: list[str], targets: Sequence[str]) -> pd.DataFrame:
    """Read some columns, of a CSV all but the targets as text, so that '007' and 'NA' stay what they are."""
    if _is_parquet(path):
        return pd.read_parquet(path, columns=columns)
    text = {column: str for column in columns if column not in targets}
    blank = {column: [""] for column in text} | {column: ["", "nan", "NaN", "NA"] for column in targets}
    return pd.read_csv(
        path, sep=_find_separator(path), usecols=columns, dtype=text, keep_default_na=False, na_values=blank
    )


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in _PARQUET


def _find_separator(path: Path) -> str | None:
    return _SEPARATORS.get(Path(path.name.removesuffix(".gz")).suffix.lower())


def _choose_columns(
    there: list[str], columns: Mapping[str, str | None], targets: Sequence[str], path: Path
) -> dict[str, str]:
    """Our name -> column of the table."""
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise DataError(f"expected data.columns to name some of {', '.join(COLUMNS)}, but got {list_first(unknown)}")
    named = {name: column for name, column in columns.items() if column is not None}
    if targets:
        named = {name: column for name, column in named.items() if name != "finding"}
    needed = ("image_path",) if targets else ("image_path", "finding")
    wanted = {name: named.get(name, name) for name in COLUMNS if name in needed or name in named}
    wanted |= {TARGET_PREFIX + target: target for target in targets}
    absent = [column for column in wanted.values() if column not in there]
    if absent:
        raise DataError(
            f"expected the column {list_first(absent)} in {path}, but it has {list_first(there, 30)}; "
            "set data.columns (or data.targets) to the names in the table"
        )
    free = [name for name in COLUMNS if name in there and name not in wanted and name not in columns]
    return wanted | {name: name for name in free if name != "finding"}
