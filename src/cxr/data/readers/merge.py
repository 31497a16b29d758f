"""Several datasets as one: their tables below each other, told apart by source, with common findings.

Knows nothing of how any of them is read, of classes and of splits that are carved later.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cxr.data.samples import TARGET_PREFIX, list_first, target_names
from cxr.data.views import OWN_FILTER, require_view_mode
from cxr.errors import ConfigError, DataError

log = logging.getLogger(__name__)

FOR_ALL = {"limit": None, "split_file": None, "on_bad_file": "error", "leak_gate": "stop", "avoid": None}
"""Settings that hold for all datasets together -> the value that says nothing of one of them."""


def make_merged_samples(
    sources: Mapping[str, Mapping[str, Any]], *, fractions: Sequence[float] | None = None
) -> pd.DataFrame:
    """Read several datasets and put their tables below each other.

    Args:
        sources: Name -> dataset, with `reader` (makes its raw table) and, where wanted, `classes` (its finding -> the
            common finding) or `finding_targets` (its finding -> a list of the targets that are positive; all targets
            named anywhere in the mapping are stated for this dataset). None in a mapping leaves the finding out. Its
            `view_filter` goes into the table; its `FOR_ALL` must be as they are. Other keys play no part.
        fractions: Those by which the merged images will be divided; a dataset with others is told that these play no
            part.

    Returns:
        The rows of all tables. `sample_id`, `patient_id` and `study_id` begin with 'name/', so that they cannot
        collide; `source` is the name, and what a dataset itself calls its sources is in `source_within`. A target that
        a dataset does not have is not stated (NaN) for its rows. Where a dataset filters its views, the column
        `view_filter` says how, for `filter_views` to do.

    Raises:
        ConfigError: No datasets, one with both mappings, or one with a setting that cannot be applied to it alone.
        DataError: What a reader raises; a finding that its mapping leaves open; targets in some datasets alone.
    """
    if not sources:
        raise ConfigError(
            "expected datasets to merge, but data.sources is empty; add them by name, for example: "
            "data=merge +data@data.sources.children=chest_xray +data@data.sources.mixed=radiography"
        )
    for name, source in sources.items():
        _check_settings(name, source, fractions)
    tables = {name: _read_source(name, source) for name, source in sources.items()}
    without = [name for name, table in tables.items() if not target_names(table)]
    if 0 < len(without) < len(tables):
        raise DataError(
            f"expected targets in every dataset or in none, but {list_first(without)} has none; give it "
            "`finding_targets: {finding: [targets that are positive]}` in data.sources"
        )
    merged = pd.concat(tables.values(), ignore_index=True)
    if OWN_FILTER in merged:
        merged[OWN_FILTER] = merged[OWN_FILTER].fillna("none")
    if "split" in merged:
        _warn_about_parts(merged)
    merged.attrs["report"] = {
        f"{name}: {problem}": count
        for name, table in tables.items()
        for problem, count in table.attrs.get("report", {}).items()
    }
    return merged


def _check_settings(name: str, source: Mapping[str, Any], fractions: Sequence[float] | None) -> None:
    if source.get("classes") is not None and source.get("finding_targets") is not None:
        raise ConfigError(f"expected classes or finding_targets for data.sources.{name}, but got both; leave one out")
    require_view_mode(source.get("view_filter", "none"), f"data.sources.{name}.view_filter")
    for key, silent in FOR_ALL.items():
        if source.get(key, silent) != silent:
            raise ConfigError(
                f"expected {key} for all merged datasets together, but got data.sources.{name}.{key}={source[key]}; "
                f"set data.{key} instead"
            )
    own = source.get("fractions")
    if own is not None and fractions is not None and list(own) != list(fractions):
        log.warning(
            "data.sources.%s.fractions plays no part: data.fractions=%s divides all images", name, list(fractions)
        )


def _read_source(name: str, source: Mapping[str, Any]) -> pd.DataFrame:
    classes, positives = source.get("classes"), source.get("finding_targets")
    raw = source["reader"]()
    table = raw.rename(columns={"source": "source_within"}).assign(source=name)
    for column in table.columns.intersection(["sample_id", "patient_id", "study_id"]):
        table[column] = f"{name}/" + _clean(table[column])
    if classes is not None:
        table["finding"] = _map_findings(name, table, classes)
        table = table[table["finding"].notna()]
    if positives is not None:
        told = _map_findings(name, table, positives).dropna()
        targets = dict.fromkeys(target for some in positives.values() for target in some or ())
        stated = {TARGET_PREFIX + target: [float(target in some) for some in told] for target in targets}
        table = table.loc[told.index].assign(**stated)
    if source.get("view_filter", "none") != "none":
        table[OWN_FILTER] = source["view_filter"]
    table.attrs["report"] = dict(raw.attrs.get("report", {}))
    return table


def _map_findings(name: str, table: pd.DataFrame, mapping: Mapping[Any, Any]) -> pd.Series:
    """What the mapping says of each row's finding; None where it leaves the finding out."""
    if "finding" not in table:
        raise DataError(f"expected findings to map in data.sources.{name}, but it has targets; leave the mapping out")
    findings = _clean(table["finding"])
    by_text = {str(finding): value for finding, value in mapping.items()}
    unmapped = sorted(set(findings.dropna().unique()) - set(by_text))
    if unmapped:
        raise DataError(
            f"expected data.sources.{name} to map every finding of its dataset, but {list_first(unmapped)} is not "
            "mapped; map it, or map it to null to leave it out"
        )
    return findings.map(by_text)


def _clean(values: pd.Series) -> pd.Series:
    """Text without outer spaces; blank is missing."""
    text = values.astype("str").str.strip()
    return text.where(values.notna() & (text != ""))


def _warn_about_parts(merged: pd.DataFrame) -> None:
    """An official part of some datasets alone makes a split whose parts differ in their sources."""
    for part in ("val", "test"):
        having = merged.loc[merged["split"] == part, "source"].unique()
        if 0 < len(having) < merged["source"].nunique():
            log.warning(
                "the %s part is the official one of %s alone: it says nothing about the other datasets",
                part,
                list_first(having),
            )
