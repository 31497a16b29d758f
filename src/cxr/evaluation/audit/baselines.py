"""Each baseline, measured on one image of each patient. Knows nothing of verdicts and of which rows make a scope."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.evaluation.audit.metadata import code_levels, describe_columns
from cxr.evaluation.audit.regions import Images, describe_regions
from cxr.evaluation.audit.separation import (
    FOLDS,
    Separation,
    auroc_by_class,
    separate_by_features,
    separate_by_scores,
)
from cxr.evaluation.audit.verdicts import AuditRow, Measurement, untestable

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]

FEWEST = 2 * FOLDS
MOST = 20_000
PROBED = ("source", "manufacturer", "view_position", "sex")
TABLE_PENALTY = 1.0
PIXEL_PENALTY = 0.005  # for each feature
EMBEDDING_PENALTY = 0.3  # for each feature


@dataclass(frozen=True)
class NetOutputs:
    """What a net gave for M rows of the samples table that it was not trained on.

    Attributes:
        rows: (M,) positions in the table.
        embeddings: (M, D) input of the net's head.
        probs: (M, K) for whole images.
        covered_probs: (M, K) for the images of `cover_lungs`.
    """

    rows: IntArray
    embeddings: FloatArray
    probs: FloatArray
    covered_probs: FloatArray


@dataclass(frozen=True)
class Scope:
    """Rows to measure on: one image of each patient, of every class that has enough of them.

    Attributes:
        name: all, or a part of the split.
        samples: The rows, as in the samples table.
        rows: (M,) their positions there.
        labels: The classes that are there, as indices into the class names.
        class_names: Their names.
        permutations: Shuffles behind each p-value.
        seed: Of folds and shuffles.
    """

    name: str
    samples: pd.DataFrame
    rows: IntArray
    labels: IntArray
    class_names: tuple[str, ...]
    permutations: int
    seed: int

    @property
    def target(self) -> IntArray:
        """(M,) position of each row's class in `labels`."""
        return np.searchsorted(self.labels, self.samples["label"].to_numpy(dtype=np.int64)).astype(np.int64)

    def separate(self, features: FloatArray, penalty: float) -> Separation:
        """Learn the classes from features of the rows."""
        return separate_by_features(
            features, self.target, penalty=penalty, permutations=self.permutations, seed=self.seed
        )

    def refuse(self, name: str, reason: str, column: str = "") -> AuditRow:
        """The row of a baseline that cannot be measured here."""
        return untestable(name, self.name, reason, column)


def make_scope(
    samples: pd.DataFrame, rows: IntArray, name: str, class_names: Sequence[str], permutations: int, seed: int
) -> Scope:
    """Draw one image of each of at most `MOST` patients, and leave out classes of fewer than `FEWEST` patients.

    Args:
        samples: The whole table with `label`, and `group`, or else `patient_id`, or else neither.
        rows: (N,) positions of the rows to draw from.
        name: See `Scope`.
        class_names: Of the table's labels.
        permutations: See `Scope`.
        seed: Of the draw, of folds and of shuffles.
    """
    drawn = _one_for_each(_patients(samples)[rows], np.random.default_rng(seed))
    label = samples["label"].to_numpy(dtype=np.int64)[rows[drawn]]
    found, counts = np.unique(label, return_counts=True)
    labels = found[counts >= FEWEST]
    kept = rows[drawn][np.isin(label, labels)]
    names = tuple(class_names[k] for k in labels)
    return Scope(name, samples.iloc[kept], kept, labels.astype(np.int64), names, permutations, seed)


def measure_table(scope: Scope, columns: Sequence[str]) -> Iterator[Measurement | AuditRow]:
    """Source alone, and all of `columns` together with each alone beside them."""
    for name, chosen in (("source", ["source"]), ("metadata", list(columns))):
        known = [column for column in chosen if column in scope.samples and scope.samples[column].notna().any()]
        if not known:
            yield scope.refuse(name, "the table does not tell it")
            continue
        found = scope.separate(describe_columns(scope.samples, known), TABLE_PENALTY)
        parts = _measure_parts(scope, known, found.strongest) if name == "metadata" else {}
        yield Measurement(name, scope.name, found, scope.class_names, parts=parts)


def measure_images(scope: Scope, images: Images) -> Iterator[Measurement]:
    """Border, corners and thumbnail."""
    regions = describe_regions(images, scope.rows)
    for name in ("border", "corners", "thumbnail"):
        features: FloatArray = getattr(regions, name)
        found = scope.separate(features, PIXEL_PENALTY * features.shape[1])
        yield Measurement(name, scope.name, found, scope.class_names)


def measure_net(scope: Scope, net: NetOutputs) -> Iterator[Measurement | AuditRow]:
    """The net on whole and on covered images, and what its embeddings know; all rows of the scope are in `net.rows`."""
    place = pd.Index(net.rows).get_indexer(pd.Index(scope.rows))
    for name, probs in (("net", net.probs), ("lungs covered", net.covered_probs)):
        scores = probs[place][:, scope.labels]
        found = separate_by_scores(scores, scope.target, permutations=scope.permutations, seed=scope.seed)
        yield Measurement(name, scope.name, found, scope.class_names)
    embeddings = _standardise(net.embeddings[place])
    for column in PROBED:
        if column in scope.samples and scope.samples[column].nunique() > 1:
            yield _probe(scope, embeddings, column)


def _patients(samples: pd.DataFrame) -> IntArray:
    """Number of the patient of each row; one without an id is a patient."""
    key = next((name for name in ("group", "patient_id") if name in samples), None)
    lone = np.arange(len(samples))
    if key is None:
        return lone
    codes, _ = pd.factorize(samples[key])
    return np.where(codes >= 0, codes, len(samples) + lone)


def _one_for_each(patients: IntArray, rng: np.random.Generator) -> IntArray:
    """Positions, in order, of a random row of each patient, of `MOST` random patients where there are more."""
    order = rng.permutation(len(patients))
    _, first = np.unique(patients[order], return_index=True)
    return np.sort(rng.permutation(order[first])[:MOST])


def _measure_parts(scope: Scope, columns: Sequence[str], strongest: int) -> dict[str, float]:
    """AUROC of one class by each column alone."""
    return {
        column: auroc_by_class(
            describe_columns(scope.samples, [column]), scope.target, penalty=TABLE_PENALTY, seed=scope.seed
        )[strongest]
        for column in columns
    }


def _standardise(embeddings: FloatArray) -> FloatArray:
    spread = embeddings.std(axis=0)
    return (embeddings - embeddings.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _probe(scope: Scope, embeddings: FloatArray, column: str) -> Measurement | AuditRow:
    """How well the embeddings tell the values of a column among rows of one class, so that the class is no help."""
    codes, levels = code_levels(scope.samples[column])
    kept = _comparable(codes, scope.target)
    values, counts = np.unique(codes[kept], return_counts=True)
    values = values[counts >= FEWEST]
    if len(values) < 2:
        reason = f"no class has two values of {column} with enough patients, so the two cannot be told apart"
        return scope.refuse("probe", reason, column)
    kept &= np.isin(codes, values)
    found = separate_by_features(
        embeddings[kept],
        np.searchsorted(values, codes[kept]).astype(np.int64),
        penalty=EMBEDDING_PENALTY * embeddings.shape[1],
        strata=scope.target[kept],
        permutations=scope.permutations,
        seed=scope.seed,
    )
    return Measurement("probe", scope.name, found, tuple(levels[value] for value in values), column=column)


def _comparable(codes: IntArray, target: IntArray) -> NDArray[np.bool_]:
    """Rows of the classes in which two values of the column have enough patients for the folds."""
    counts = np.zeros((int(target.max()) + 1, int(codes.max()) + 1), dtype=np.int64)
    np.add.at(counts, (target, codes), 1)
    return ((counts >= FOLDS).sum(axis=1) >= 2)[target]
