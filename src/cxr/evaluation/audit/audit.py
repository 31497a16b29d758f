"""The shortcut audit of a table of samples, its images and a net's outputs. Knows nothing of bundles or of printing.

Everything is measured on one image of each patient, drawn by the seed: the rows are then independent, and no patient
is in two folds. The result holds counts, the names of columns and classes and the values of probed columns, but never
an id or a path.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.data.cohort import Cohort
from cxr.data.image_store import ImageStore
from cxr.errors import DataError
from cxr.evaluation.audit.baselines import (
    FEWEST,
    FloatArray,
    IntArray,
    NetOutputs,
    Scope,
    make_scope,
    measure_images,
    measure_net,
    measure_table,
)
from cxr.evaluation.audit.metadata import METADATA
from cxr.evaluation.audit.regions import Images, StoredArray, average_image, cover_lungs
from cxr.evaluation.audit.separation import PERMUTATIONS
from cxr.evaluation.audit.verdicts import ALPHA, FLOOR, SHORTCUT, AuditRow, Measurement, can_alarm, judge
from cxr.evaluation.statistics.corrections import holm

FORMAT = 1
FILE = "audit.json"
_BATCH = 64

Found = Measurement | AuditRow
Net = Callable[[StoredArray], tuple[FloatArray, FloatArray]]
"""Stored images (B, h, w) to embeddings (B, D) and probabilities (B, K)."""


@dataclass(frozen=True)
class Audit:
    """The result.

    Attributes:
        rows: One for each baseline and scope.
        settings: permutations, seed, alpha, floor.
        class_names: Of the samples.
    """

    rows: tuple[AuditRow, ...]
    settings: dict[str, Any]
    class_names: list[str]

    @property
    def shortcuts(self) -> list[AuditRow]:
        """The rows that give a class away."""
        return [row for row in self.rows if row.verdict == SHORTCUT]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": FORMAT,
            "settings": self.settings,
            "class_names": self.class_names,
            "shortcuts": len(self.shortcuts),
            "rows": [asdict(row) for row in self.rows],
        }


def audit_cohort(cohort: Cohort, images: ImageStore, net: Net | None = None, *, seed: int = 0) -> Audit:
    """Audit a cohort with its images, all of which are ready in the store; see `audit_samples`.

    Args:
        cohort: Its test part is what the net is measured on.
        images: For a net, made with the net's own preprocessing.
        net: A net that was not trained on the test part.
        seed: Of the draw of images, of folds and of shuffles.
    """
    samples = cohort.samples
    stored = images.open(samples["image_path"].tolist(), samples["content_hash"].tolist())
    outputs = None if net is None else run_net(net, stored, held_out_rows(samples))
    return audit_samples(samples, cohort.class_names, images=stored, net=outputs, seed=seed)


def audit_samples(
    samples: pd.DataFrame,
    class_names: Sequence[str],
    *,
    images: Images | None = None,
    net: NetOutputs | None = None,
    columns: Sequence[str] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Audit:
    """Measure how much of the label can be had without the disease.

    Source and metadata, and with `images` border, corners and thumbnail, each over the whole set and over its test
    part if it has one; with `net` also the net with the lungs covered, and which columns its embeddings know.

    Args:
        samples: N rows with `label`; `group` (rows that belong together) or else `patient_id` or else nothing, which
            makes each row a patient; where known `split`, `source` and metadata.
        class_names: Names of the labels.
        images: The stored image of each row, in order.
        net: Outputs for rows that the net was not trained on.
        columns: Metadata to look at; None takes those of `METADATA` that the table has.
        permutations: Shuffles behind each p-value.
        seed: Of the draw of patients and images, of folds and of shuffles.

    Returns:
        The audit. The chance of any row with the verdict shortcut is at most `ALPHA` where there is none.

    Raises:
        DataError: A column or a label is absent, or images or outputs do not fit the table.
    """
    _check_table(samples, columns)
    if images is not None and len(images) != len(samples):
        raise DataError(f"expected one image for each of {len(samples)} samples, got {len(images)}; pass matching rows")
    if net is not None:
        _check_outputs(net, len(samples), len(class_names))
    chosen = [name for name in METADATA if name in samples] if columns is None else list(columns)
    found: list[Found] = []
    for name, rows in _scopes(samples).items():
        scope = make_scope(samples, rows, name, class_names, permutations, seed)
        found += _measure_data(scope, chosen, images)
    if net is not None:
        scope = make_scope(samples, net.rows, _part_of(samples, net.rows), class_names, permutations, seed)
        found += _few(scope, "lungs covered") if _is_small(scope) else measure_net(scope, net)
    settings = {"permutations": permutations, "seed": seed, "alpha": ALPHA, "floor": FLOOR}
    return Audit(tuple(_judge_all(found)), settings, list(class_names))


def run_net(net: Net, images: Images, rows: IntArray) -> NetOutputs:
    """Put images through a net, whole and with the lungs covered.

    Args:
        net: See `Net`.
        images: Stored images.
        rows: (M,) positions of those that the net was not trained on.
    """
    average = average_image(images, rows)
    batches = np.split(rows, range(_BATCH, len(rows), _BATCH))
    whole = [net(images[batch]) for batch in batches]
    covered = [net(cover_lungs(images[batch], average))[1] for batch in batches]
    embeddings, probs = (np.concatenate(parts) for parts in zip(*whole, strict=True))
    return NetOutputs(rows, embeddings, probs, np.concatenate(covered))


def held_out_rows(samples: pd.DataFrame) -> IntArray:
    """Positions of the test part, or of all rows where there is none."""
    return list(_scopes(samples).values())[-1]


def write_audit(audit: Audit, folder: Path) -> Path:
    """Write `audit.json` into an existing folder, whole or not at all; return its path."""
    path = folder / FILE
    part = path.with_name(f".{FILE}.{os.getpid()}.part")
    part.write_text(json.dumps(audit.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return part.replace(path)


def _scopes(samples: pd.DataFrame) -> dict[str, IntArray]:
    """Positions of all rows, and of the test part."""
    scopes = {"all": np.arange(len(samples))}
    if "split" in samples and (samples["split"] == "test").any():
        scopes["test"] = np.flatnonzero(samples["split"] == "test")
    return scopes


def _part_of(samples: pd.DataFrame, rows: IntArray) -> str:
    """The part of the split that all these rows are of, else all."""
    parts = set(samples["split"].iloc[rows]) if "split" in samples else set()
    return str(parts.pop()) if len(parts) == 1 else "all"


def _is_small(scope: Scope) -> bool:
    return len(scope.labels) < 2


def _few(scope: Scope, *names: str) -> list[AuditRow]:
    return [scope.refuse(name, f"it takes {FEWEST} patients of two classes at least") for name in names]


def _measure_data(scope: Scope, columns: Sequence[str], images: Images | None) -> list[Found]:
    if _is_small(scope):
        return list(_few(scope, "source", "metadata", *(() if images is None else ("border", "corners"))))
    return [*measure_table(scope, columns), *(() if images is None else measure_images(scope, images))]


def _judge_all(found: Sequence[Found]) -> list[AuditRow]:
    """Verdicts with p-values corrected over all rows that can alarm, and apart from them over all others."""
    measured = {i: one for i, one in enumerate(found) if isinstance(one, Measurement)}
    p_values = {i: one.separation.p_value for i, one in measured.items()}
    adjusted: dict[int, float] = {}
    for alarming in (True, False):
        family = [i for i, one in measured.items() if can_alarm(one) is alarming]
        adjusted |= dict(zip(family, holm([p_values[i] for i in family]), strict=True))
    return [judge(one, adjusted[i]) if isinstance(one, Measurement) else one for i, one in enumerate(found)]


def _check_table(samples: pd.DataFrame, columns: Sequence[str] | None) -> None:
    absent = [name for name in ("label", *(columns or ())) if name not in samples]
    if absent:
        raise DataError(
            f"expected the columns {', '.join(absent)} in the table of samples, got {', '.join(samples.columns)}; "
            "name columns that the dataset's reader gives"
        )
    unlabelled = int(samples["label"].isna().sum())
    if unlabelled:
        raise DataError(f"expected a label in every row, got {unlabelled} without; leave these rows out")


def _check_outputs(net: NetOutputs, num_samples: int, num_classes: int) -> None:
    count = len(net.rows)
    if count == 0 or net.rows.min() < 0 or net.rows.max() >= num_samples or len(np.unique(net.rows)) != count:
        raise DataError(f"expected different positions from 0 to {num_samples - 1} in rows, got others; pass each once")
    shapes = [net.probs.shape, net.covered_probs.shape, net.embeddings.shape[:1]]
    wanted = [(count, num_classes), (count, num_classes), (count,)]
    if shapes != wanted:
        raise DataError(f"expected outputs of shapes {wanted}, got {shapes}; run the net on the rows that are named")
    if not all(np.isfinite(values).all() for values in (net.probs, net.covered_probs, net.embeddings)):
        raise DataError("expected finite outputs of the net, got NaN or infinity; look for a diverged run")
