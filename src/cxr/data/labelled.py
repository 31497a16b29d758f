"""A dataset as its reader gives it, each row with its label; no file is looked into.

Knows nothing of parts, images or runs. Report and log hold counts only, never an id or a path.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cxr.data.samples import count_classes, list_first, make_samples, target_names
from cxr.errors import ConfigError

log = logging.getLogger(__name__)

Report = dict[str, Any]


@dataclass(frozen=True)
class LabelledSamples:
    """A dataset as it was read, no file looked into.

    Attributes:
        samples: The table of the gate.
        class_names: Names of the labels.
        report: What the reader found, as counts under plain JSON types.
    """

    samples: pd.DataFrame
    class_names: list[str]
    report: Report


def read_dataset(reader: Callable[[], pd.DataFrame], classes: Mapping[str, str | None] | None) -> LabelledSamples:
    """Read the table of a dataset and give every row its label.

    Args:
        reader: Makes the raw table of a dataset.
        classes: finding -> class name, see `make_samples`.

    Raises:
        DataError: The dataset is not there, or its table is not sound.
    """
    raw = reader()
    samples, class_names = make_samples(raw, classes)
    labelled = samples if target_names(samples) else raw
    findings = labelled["finding"].astype("str").str.strip().value_counts().sort_index()
    report = {
        "classes": class_names,
        "reader": dict(raw.attrs.get("report", {})),
        "findings": {str(finding): int(count) for finding, count in findings.items()},
        "findings_left_out": len(raw) - len(samples),
    }
    if "source" in samples and samples["source"].nunique() > 1:
        report["classes_by_source"] = _count_by_source(samples, class_names)
    return LabelledSamples(samples, class_names, report)


def tell_one_class(dataset: LabelledSamples, name: str) -> LabelledSamples:
    """The same samples as two classes: any other (label 0), and the one (label 1).

    Args:
        dataset: With one class per sample.
        name: One of its classes.

    Raises:
        ConfigError: It has no such class.
    """
    names = [] if target_names(dataset.samples) else dataset.class_names
    if name not in names:
        raise ConfigError(
            f"expected data.one_class to be a class of the dataset ({list_first(names)}), but got {name!r}; "
            "choose one of these"
        )
    samples = dataset.samples.assign(label=(dataset.samples["label"] == names.index(name)).astype("int64"))
    two = [f"not {name}", name]
    return LabelledSamples(samples, two, dataset.report | {"classes": two})


def _count_by_source(samples: pd.DataFrame, class_names: list[str]) -> dict[str, dict[str, int]]:
    """Source -> class -> samples; warns of classes that one source alone has, for then the source tells the class."""
    counts = {str(source): count_classes(rows, class_names) for source, rows in samples.groupby("source")}
    for name in class_names:
        having = [source for source, classes in counts.items() if classes[name] > 0]
        if len(having) == 1:
            log.warning(
                "every sample of class %s comes from source %s alone, others do not: a net may learn to tell the "
                "source instead of the class; take datasets in which each source has every class",
                name,
                having[0],
            )
    return counts
