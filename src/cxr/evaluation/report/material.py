"""What a report is made of: the tables and records of a run folder, or tables of predictions from anywhere.

Knows nothing of what is made of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cxr.data.samples import list_first
from cxr.errors import DataError
from cxr.evaluation.explain_page import read_explanations
from cxr.evaluation.foreign import read_foreign
from cxr.evaluation.ledger import FILE
from cxr.evaluation.predictions import read_predictions

PARTS = ("train", "oof", "val", "test")
"""`oof`: the rows of all folds of a cross-validation, each by a net that did not learn it."""
BASELINES = "baselines"


@dataclass(frozen=True)
class Question:
    """One set of classes and the tables that answer for it.

    Attributes:
        name: Target of a multi-label run; empty otherwise.
        class_names: The K names in order.
        parts: Part -> predictions table, in the order of `PARTS`.
        baselines: Name -> part -> predictions table of what needs no net.
    """

    name: str
    class_names: list[str]
    parts: dict[str, pd.DataFrame]
    baselines: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)


@dataclass(frozen=True)
class Material:
    """Everything a report may use.

    Attributes:
        name: What is evaluated.
        questions: At least one.
        config: The resolved config of a run, else empty.
        data: The data report of a run, else empty.
        bundle: The description of its bundle, else empty.
        metrics: What ``metrics.json`` holds so far, else empty.
        versions: Package -> version that the run was made with.
        history: One row per epoch, or None.
        megabytes: Size of the weights on disk, or None.
        gallery: Pictures of what the net looks at, in order.
        explanations: What `cxr explain` found of the run, see `read_explanations`.
    """

    name: str
    questions: list[Question]
    config: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    bundle: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    history: pd.DataFrame | None = None
    megabytes: float | None = None
    gallery: Sequence[Path] = ()
    explanations: Sequence[Mapping[str, Any]] = ()


def read_run(folder: Path) -> Material:
    """The material of a run folder.

    Raises:
        DataError: The folder is no finished run, or a table in it is not sound.
    """
    config_file, metrics_file = folder / "config.yaml", folder / "metrics.json"
    if not config_file.exists() or not metrics_file.exists():
        raise DataError(
            f"expected a finished run with config.yaml and metrics.json, but {folder} has not both; "
            "give the folder of a run, or a table of predictions (.csv)"
        )
    weights = list((folder / "bundle").rglob("model.*"))
    history = folder / "history.csv"
    config = dict(yaml.safe_load(config_file.read_text()))
    return Material(
        name=f"{config.get('run_name', 'run')} {folder.name}",
        questions=read_questions(folder),
        config=config,
        data=_read_json(folder / "data_report.json"),
        bundle=_read_json(folder / "bundle" / "bundle.json"),
        metrics=_read_json(metrics_file),
        versions=_read_versions(folder / "environment.txt"),
        history=pd.read_csv(history) if history.exists() else None,
        megabytes=sum(file.stat().st_size for file in weights) / 1e6 if weights else None,
        gallery=sorted((folder / "gallery").glob("*.png")),
        explanations=read_explanations(folder),
    )


def read_tables(test: Path, validation: Path | None, train: Path | None, class_names: Sequence[str] | None) -> Material:
    """The material of tables made elsewhere.

    Args:
        test: See `read_foreign`.
        validation: Of the same model; without it nothing is fitted and no threshold chosen.
        train: Of the same model; for the gap, and for baselines.
        class_names: See `read_foreign`.

    Raises:
        DataError: A table is not sound, or their classes differ.
    """
    files = {
        part: path
        for part, path in zip(("train", "val", "test"), (train, validation, test), strict=True)
        if path is not None
    }
    read = {part: read_foreign(path, class_names, part) for part, path in files.items()}
    names = read["test"][1]
    for part, (_, others) in read.items():
        if others != names:
            raise DataError(
                f"expected the classes {list_first(names)} in every table, but {files[part]} has {list_first(others)}"
            )
    return Material(test.stem, [Question("", names, {part: table for part, (table, _) in read.items()})])


def ledger_path(config: Mapping[str, Any]) -> Path:
    """Where evaluations of a run's test part are told: beside a given split file, else in the folder of all logs.

    A split file among the logs was made by a run or a plan of this project, and counts as made here.
    """
    log_dir, split_file = Path(config["paths"]["log_dir"]), config["data"]["split_file"]
    if split_file is None or log_dir.absolute() in Path(split_file).absolute().parents:
        return log_dir / FILE
    return Path(split_file).parent / FILE


def read_questions(folder: Path, parts: Sequence[str] = PARTS) -> list[Question]:
    """The question of a run, or the questions of a multi-label one, by the names of their tables.

    Args:
        folder: The run folder.
        parts: Whose tables to read.

    Raises:
        DataError: There are none, or one is not sound.
    """
    tables = {path.stem.removeprefix("predictions_"): path for path in sorted(folder.glob("predictions_*.csv"))}
    tables = {name: path for name, path in tables.items() if not name.endswith("_study")}
    found: dict[str, dict[str, Path]] = {}
    for name, path in tables.items():
        part, _, target = name.partition("_")
        if part in parts:
            found.setdefault(target, {})[part] = path
    if not found:
        raise DataError(f"expected tables predictions_<part>.csv in {folder}, but there are none; finish the run")
    return [_read_question(folder, target, files) for target, files in found.items()]


def _read_question(folder: Path, target: str, files: Mapping[str, Path]) -> Question:
    parts = {part: read_predictions(files[part]) for part in PARTS if part in files}
    class_names = next(iter(parts.values()))[1]
    baselines = {} if target else _read_baselines(folder / BASELINES)
    return Question(target, class_names, {part: table for part, (table, _) in parts.items()}, baselines)


def _read_baselines(folder: Path) -> dict[str, dict[str, pd.DataFrame]]:
    """Name -> part -> table of ``<part>_<name>.csv``."""
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for path in sorted(folder.glob("*.csv")):
        part, _, name = path.stem.partition("_")
        found.setdefault(name.replace("_", " "), {})[part] = read_predictions(path)[0]
    return found


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _read_versions(path: Path) -> dict[str, str]:
    """The versions that tell how a model was made."""
    if not path.exists():
        return {}
    pairs = (line.partition("==") for line in path.read_text().splitlines())
    told = ("python", "cxr-lab", "torch", "torchvision", "timm", "pytorch-lightning", "numpy", "pydicom")
    return {name: version for name, _, version in pairs if name.lower() in told}
