"""What two parts of a dataset share, and what a run does about it.

Knows nothing of how parts were made or of how alike images are found. Tables and messages here name samples and files;
what goes into a log or a report is counts.
"""

import logging
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.data.leaks.similar import NEAR, Similar
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
    ends = pd.concat([similar.pairs[["pixel_a"]].set_axis(["pixel_hash"], axis=1),
                      similar.pairs[["pixel_b"]].set_axis(["pixel_hash"], axis=1)])  # fmt: skip
    ends["film"] = make_groups(ends.assign(pair=ends.index), ["pixel_hash", "pair"])
    film = samples["pixel_hash"].map(dict(zip(ends["pixel_hash"], ends["film"], strict=True)))
    return make_groups(samples.assign(film=film), ["group", "pixel_hash", "film"])


def find_leaks(samples: pd.DataFrame, similar: Similar | None) -> pd.DataFrame:
    """What different parts of a table share.

    Args:
        samples: Table with `sample_id`, `split`, and those of the columns of KEYS and `group` that are known. Parts may
            have any names; train, val and test come first.
        similar: Pairs of images that show one film; None looks for none.

    Returns:
        `kind, part_a, part_b, sample_a, sample_b, score`: each pair once, under the first kind that holds: those of
        KEYS, 'near' (images that show one film, with their score, at least NEAR) or 'linked' (through other
        samples: a group that shares nothing directly). `part_a` comes first in the order of parts. Of a value that
        many samples share, every sample is named at least once, not every pair.
    """
    pairs = [_share(samples, column).assign(kind=kind) for kind, column in KEYS.items() if column in samples]
    if similar is not None:
        pairs.append(_near(samples, similar))
    if "group" in samples:
        pairs.append(_share(samples, "group").assign(kind="linked"))
    found = pd.concat([pd.DataFrame(columns=list(PAIR_COLUMNS)), *(one for one in pairs if len(one))])
    found = found.drop_duplicates(["sample_a", "sample_b"])
    named = set(found.loc[found["kind"] != "linked", "sample_a"]) | set(
        found.loc[found["kind"] != "linked", "sample_b"]
    )
    known = found["sample_a"].isin(named) & found["sample_b"].isin(named)
    return found[(found["kind"] != "linked") | ~known].reset_index(drop=True)[list(PAIR_COLUMNS)]


def find_external_leaks(samples: pd.DataFrame, external: pd.DataFrame, similar: Similar | None) -> pd.DataFrame:
    """What a cohort shares with another table of samples, such as an external test set.

    Args:
        samples: The cohort's table, with `split`.
        external: The other table; its own `split` plays no part.
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
    alone = samples[["sample_id", "split", *(KEYS[kind] for kind in IMAGE_KEYS if KEYS[kind] in samples)]]
    pairs = find_leaks(alone.assign(split=alone["sample_id"]), similar)
    equal = pairs["kind"] != "near"
    pairs = pairs[~(equal & pairs["sample_a"].isin(pairs.loc[equal, "sample_b"]))].reset_index(drop=True)
    parts = alone.set_index("sample_id")["split"]
    return pairs.assign(part_a=pairs["sample_a"].map(parts), part_b=pairs["sample_b"].map(parts))


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
    """Pairs of samples of different parts with one value, `score` 1."""
    known = samples.loc[samples[column].notna(), ["sample_id", "split", column]].sort_values("sample_id")
    shared = known[known.groupby(column)["split"].transform("nunique") > 1]
    pairs = [pair for _, rows in shared.groupby(column) for pair in _pair_up(rows)]
    return pd.DataFrame(pairs, columns=list(PAIR_COLUMNS[1:5])).assign(score=1.0)


def _pair_up(rows: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    """Every sample of one part with one of each other part."""
    parts = {str(part): ids.to_numpy() for part, ids in rows.groupby("split")["sample_id"]}
    for one, other in combinations(sorted(parts, key=_order), 2):
        count = max(len(parts[one]), len(parts[other]))
        for pair in zip(np.resize(parts[one], count), np.resize(parts[other], count), strict=True):
            yield one, other, *pair


def _near(samples: pd.DataFrame, similar: Similar) -> pd.DataFrame:
    pairs = similar.pairs[similar.pairs["score"] >= NEAR]
    ids = samples[["sample_id", "split", "pixel_hash"]]
    both = pairs.merge(ids.add_suffix("_a"), left_on="pixel_a", right_on="pixel_hash_a")
    both = both.merge(ids.add_suffix("_b"), left_on="pixel_b", right_on="pixel_hash_b")
    both = both[both["split_a"] != both["split_b"]]
    rows = both[["split_a", "split_b", "sample_id_a", "sample_id_b", "score"]].itertuples(index=False)
    ordered = [
        (a, b, one, other, score) if _order(a) < _order(b) else (b, a, other, one, score)
        for a, b, one, other, score in rows
    ]
    return (
        pd.DataFrame(ordered, columns=list(PAIR_COLUMNS[1:])).sort_values(["sample_a", "sample_b"]).assign(kind="near")
    )


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
