"""What two parts of a dataset share, and what a run does about it.

Knows nothing of how parts were made or of how alike images are found. Tables and messages here name samples and files;
what goes into a log or a report is counts.
"""

import logging
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr.data.leaks.films import NEAR
from cxr.data.leaks.similar import Similar
from cxr.data.owner_lists import write_list
from cxr.data.samples import PARTS
from cxr.data.splits import make_groups
from cxr.errors import DataError

log = logging.getLogger(__name__)

POLICIES = ("stop", "warn", "drop", "off")
KEYS = {
    "file": "content_hash",
    "pixels": "pixel_hash",
    "instance": "sop_instance_uid",
    "study": "study_id",
    "patient": "patient_id",
}
"""Kind of a leak -> the column whose value two parts share."""
IMAGE_KEYS = ("file", "pixels", "instance")
PAIR_COLUMNS = ("kind", "part_a", "part_b", "sample_a", "sample_b", "score")
_SHOWN = 10


def add_pixel_hashes(samples: pd.DataFrame, similar: Similar) -> pd.DataFrame:
    """The samples with the column `pixel_hash`."""
    return samples.assign(pixel_hash=samples["content_hash"].map(similar.pixel_hashes))


def link_similar(samples: pd.DataFrame, similar: Similar) -> pd.Series:
    """The column `group`, with the groups of images that show one film made one, so that no split divides them.

    Args:
        samples: Table with `group` and `pixel_hash`.
        similar: What `SimilarImages.find` found.
    """
    film = samples["pixel_hash"].map(_number_films(similar.pairs))
    return make_groups(samples.assign(film=film), ["group", "pixel_hash", "film"])


def find_leaks(samples: pd.DataFrame, similar: Similar | None) -> pd.DataFrame:
    """What different parts of a table share.

    Args:
        samples: Table with `sample_id`, `split`, and those of the columns of KEYS and `group` that are known. Parts may
            have any names; train, val and test come first.
        similar: Pairs of images that show one film; None looks for none.

    Returns:
        `kind, part_a, part_b, sample_a, sample_b, score`: each pair once, under the first kind that holds: those of
        KEYS, 'near' (images that show one film, with their score, at least NEAR; where they do so through others, with
        the lowest score of the film) or 'linked' (through other samples: a group that shares nothing directly).
        `part_a` comes first in the order of parts. Of a value that many samples share, every sample is named at least
        once, not every pair.
    """
    pairs = [_share(samples, column).assign(kind=kind) for kind, column in KEYS.items() if column in samples]
    if similar is not None:
        pairs.append(_near(samples, similar))
    if "group" in samples:
        pairs.append(_share(samples, "group").assign(kind="linked"))
    found = pd.concat([pd.DataFrame(columns=list(PAIR_COLUMNS)), *(one for one in pairs if len(one))])
    found = found.drop_duplicates(["part_a", "part_b", "sample_a", "sample_b"])
    named = set(found.loc[found["kind"] != "linked", "sample_a"]) | set(
        found.loc[found["kind"] != "linked", "sample_b"]
    )
    known = found["sample_a"].isin(named) & found["sample_b"].isin(named)
    return found[(found["kind"] != "linked") | ~known].reset_index(drop=True)[list(PAIR_COLUMNS)]


def find_external_leaks(samples: pd.DataFrame, external: pd.DataFrame, similar: Similar | None) -> pd.DataFrame:
    """What a cohort shares with another table of samples, such as an external test set.

    Args:
        samples: The cohort's table, with `split`.
        external: The other table; its own `split` plays no part, and its `sample_id`s may be those of the cohort.
        similar: What `SimilarImages.find` found over the files of both; None looks for no similar images.

    Returns:
        The table of `find_leaks`, with 'external' as `part_b` throughout.
    """
    together = pd.concat([samples.drop(columns="group", errors="ignore"), external.assign(split="external")])
    if similar is not None:
        together = add_pixel_hashes(together, similar)
    leaks = find_leaks(together.drop(columns="group", errors="ignore").reset_index(drop=True), similar)
    return leaks[leaks["part_b"] == "external"].reset_index(drop=True)


def find_repeats(samples: pd.DataFrame, similar: Similar) -> pd.DataFrame:
    """Films that a table holds more than once, whatever part and patient they belong to.

    Args:
        samples: Table with `sample_id`, `split` and those of the columns of KEYS that name an image.
        similar: What `SimilarImages.find` found.

    Returns:
        The table of `find_leaks`; of equal images each is paired with the first.
    """
    equal = pd.concat([_pair_with_first(samples, kind) for kind in IMAGE_KEYS if KEYS[kind] in samples])
    equal = equal.drop_duplicates(["sample_a", "sample_b"])
    equal = equal[~equal["sample_a"].isin(equal["sample_b"])]
    near = _near_directly(samples.assign(split=samples["sample_id"]), similar)
    pairs = pd.concat([equal, near], ignore_index=True).drop_duplicates(["sample_a", "sample_b"])
    parts = samples.set_index("sample_id")["split"]
    pairs = pairs.assign(part_a=pairs["sample_a"].map(parts), part_b=pairs["sample_b"].map(parts))
    return pairs.reset_index(drop=True)[list(PAIR_COLUMNS)]


def _pair_with_first(samples: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Every sample with the first one that has the same value."""
    known = samples[samples[KEYS[kind]].notna()].sort_values("sample_id")
    first = known.groupby(KEYS[kind])["sample_id"].transform("first")
    pairs = pd.DataFrame({"kind": kind, "sample_a": first, "sample_b": known["sample_id"], "score": 1.0})
    return pairs[pairs["sample_a"] != pairs["sample_b"]]


def apply_gate(samples: pd.DataFrame, leaks: pd.DataFrame, policy: str, folder: Path) -> pd.DataFrame:
    """Stop, warn or drop.

    Args:
        samples: Table with `sample_id` and `image_path`.
        leaks: What `find_leaks` found in it.
        policy: 'stop' raises; 'warn' says how many; 'drop' leaves out `sample_a` of every pair, which is on the
            training side, or in validation where the other is in test.
        folder: Takes the list of all pairs, which names files.

    Returns:
        The samples to use.

    Raises:
        DataError: Under 'stop', the first pairs; or the list cannot be written.
    """
    if leaks.empty:
        return samples
    path = write_list(add_paths(leaks, samples, samples), folder, "leaks")
    counts = ", ".join(f"{count} x {name}" for name, count in count_leaks(leaks).items())
    if policy == "stop":
        raise DataError(
            f"expected nothing shared between parts, but found {len(leaks)} pairs ({counts}): {_describe(leaks)}; all "
            f"are in {path}: mend the split, or choose data.leak_gate=drop (leaves out the training side) or warn"
        )
    if policy == "warn":
        log.warning("parts share %d pairs of samples (%s): scores may be too good; see %s", len(leaks), counts, path)
        return samples
    dropped = samples["sample_id"].isin(leaks["sample_a"])
    log.warning("left out %d samples that another part holds as well (%s); see %s", dropped.sum(), counts, path)
    return samples[~dropped]


def add_paths(pairs: pd.DataFrame, samples: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The pairs with `path_a` and `path_b`; `samples` knows the files of `sample_a`, `other` those of `sample_b`."""
    paths_a, paths_b = (table.set_index("sample_id")["image_path"] for table in (samples, other))
    return pairs.assign(path_a=pairs["sample_a"].map(paths_a), path_b=pairs["sample_b"].map(paths_b))


def count_leaks(leaks: pd.DataFrame) -> dict[str, int]:
    """'kind part_a/part_b' -> number of pairs."""
    names = leaks["kind"] + " " + leaks["part_a"] + "/" + leaks["part_b"]
    return {str(name): int(count) for name, count in names.value_counts().sort_index().items()}


def _share(samples: pd.DataFrame, column: str) -> pd.DataFrame:
    """Pairs of samples of different parts with one `value`, `score` 1: every one with one of each other part."""
    known = samples.loc[samples[column].notna(), ["sample_id", "split", column]]
    known = known.set_axis(["sample_id", "split", "value"], axis=1)
    shared = known[known.groupby("value")["split"].transform("nunique") > 1].sort_values(["value", "sample_id"])
    codes, values = pd.factorize(shared["value"])
    parts = {str(part): rows for part, rows in shared.assign(value=codes).groupby("split")}
    pairs = [
        _pair_up(parts[one], parts[other]).assign(part_a=one, part_b=other)
        for one, other in combinations(sorted(parts, key=_order), 2)
    ]
    found = pd.concat([pd.DataFrame(columns=["sample_a", "sample_b", "value", *PAIR_COLUMNS[1:3]]), *pairs])
    return found.assign(score=1.0, value=values.take(found["value"].to_numpy(np.int64)))


def _pair_up(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Samples of two parts that have one value side by side; the part that has fewer of it begins them again.

    Args:
        one: `sample_id` and `value`, from 0 on, in the order of the values.
        other: Likewise.
    """
    size = 1 + max(one["value"].max(), other["value"].max())
    counts = [np.bincount(rows["value"], minlength=size) for rows in (one, other)]
    most = np.where(np.minimum(*counts) > 0, np.maximum(*counts), 0)
    values = np.repeat(np.arange(size), most)
    turns = np.arange(len(values)) - (most.cumsum() - most)[values]
    first, second = (
        rows["sample_id"].to_numpy()[(count.cumsum() - count)[values] + turns % count[values]]
        for rows, count in zip((one, other), counts, strict=True)
    )
    return pd.DataFrame({"sample_a": first, "sample_b": second, "value": values})


def _near(samples: pd.DataFrame, similar: Similar) -> pd.DataFrame:
    """Pairs of different parts that show one film; through others only where one of the two has no pair of its own."""
    direct = _near_directly(samples, similar)
    near = similar.pairs[similar.pairs["score"] >= NEAR]
    films = _number_films(near)
    through = _share(samples.assign(film=samples["pixel_hash"].map(films)), "film")
    through["score"] = through["value"].map(near.groupby(near["pixel_a"].map(films))["score"].min())
    paired = [_rows_in(through, direct, ["part_a", "part_b", end]) for end in ("sample_a", "sample_b")]
    return pd.concat([direct, through[~(paired[0] & paired[1])].assign(kind="near")])


def _near_directly(samples: pd.DataFrame, similar: Similar) -> pd.DataFrame:
    pairs = similar.pairs[similar.pairs["score"] >= NEAR]
    ids = samples[["sample_id", "split", "pixel_hash"]].set_axis(["sample", "part", "pixel"], axis=1)
    for end in ("a", "b"):
        pairs = pairs.merge(ids.add_suffix(f"_{end}"), on=f"pixel_{end}")
    pairs = pairs[pairs["part_a"] != pairs["part_b"]]
    order = {part: place for place, part in enumerate(sorted(samples["split"].unique(), key=_order))}
    turned = pairs["part_a"].map(order) > pairs["part_b"].map(order)
    exchanged = {"part_a": "part_b", "part_b": "part_a", "sample_a": "sample_b", "sample_b": "sample_a"}
    pairs = pd.concat([pairs[~turned], pairs[turned].rename(columns=exchanged)])
    return pairs.sort_values(["sample_a", "sample_b"])[list(PAIR_COLUMNS[1:])].assign(kind="near")


def _number_films(pairs: pd.DataFrame) -> dict[str, int]:
    """Pixel hash -> number of the film, also in a chain."""
    ends = pd.concat([pairs[["pixel_a"]].set_axis(["pixel"], axis=1), pairs[["pixel_b"]].set_axis(["pixel"], axis=1)])
    return dict(zip(ends["pixel"], make_groups(ends.assign(pair=ends.index), ["pixel", "pair"]), strict=True))


def _rows_in(table: pd.DataFrame, other: pd.DataFrame, columns: list[str]) -> npt.NDArray[np.bool_]:
    return pd.MultiIndex.from_frame(table[columns]).isin(pd.MultiIndex.from_frame(other[columns]))


def _order(part: object) -> tuple[int, str]:
    return (PARTS.index(str(part)) if part in PARTS else len(PARTS), str(part))


def _describe(leaks: pd.DataFrame) -> str:
    shown = [
        f"{row.sample_a} ({row.part_a}) and {row.sample_b} ({row.part_b}): {row.kind}"
        + (f" {row.score:.2f}" if row.kind == "near" else "")
        for row in leaks.head(_SHOWN).itertuples()
    ]
    more = f" and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
    return "; ".join(shown) + more
