"""An ensemble on disk: a folder that `cxr evaluate`, `compare` and `explain` take as they take a run.

``config.yaml`` (of the first member, as far as it speaks of data and folders), ``ensemble.yaml`` (what it is made of),
``predictions_<part>.csv``, ``metrics.json``, ``bundle/``, ``report.html``, and from the first member what is true of
all: ``split.csv``, ``data_report.json``, ``environment.txt``. Knows nothing of how members are chosen.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cxr.data.splits import SPLIT_FILE
from cxr.ensemble.fit import Ensemble
from cxr.ensemble.members import POOLED, Member
from cxr.errors import DataError
from cxr.evaluation.ledger import hash_config, make_opening, record_opening
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.predictions import aggregate_by_study, target_and_probs, write_predictions
from cxr.evaluation.report.collect import Options
from cxr.evaluation.report.material import ledger_path, read_run
from cxr.evaluation.report.page import write_report
from cxr.inference.bundle import write_ensemble
from cxr.inference.combine import Rule
from cxr.inference.description import read_description
from cxr.scaling import scaling_to_json

OF_THE_DATA = ("seed", "hash_ids", "operating_point", "data", "paths")
CONFIG, RECORD, DATA_REPORT = "config.yaml", "ensemble.yaml", "data_report.json"


def write_folder(ensemble: Ensemble, folder: Path) -> dict[str, float]:
    """Write the folder, and add a line to the ledger if the test part is in it.

    Args:
        ensemble: What to write.
        folder: Where; it is made.

    Returns:
        ``<part>/<metric>``.

    Raises:
        DataError: Members that saw other images, or a folder that cannot be written.
    """
    config, record = describe_config(ensemble), describe(ensemble)
    fingerprint = fingerprint_of_test(ensemble) if "test" in ensemble.tables else ""
    _make(folder)
    _write_yaml(config, folder / CONFIG)
    _write_yaml(record, folder / RECORD)
    for name in shared_files(ensemble):
        shutil.copyfile(ensemble.members[0].runs[0] / name, folder / name)
    metrics = write_tables(ensemble.tables, ensemble.class_names, folder)
    _add_numbers({"metrics": metrics, **scaling_to_json(ensemble.fitted.scaling)}, folder)
    write_bundle(ensemble, folder / "bundle", {"run": folder.name, "metrics": metrics})
    if "test" in ensemble.tables:
        opening = make_opening(folder.name, hash_config(record), fingerprint, "auroc", metrics["test/auroc"])
        record_opening(ledger_path(config), opening)
    return metrics


def add_test(
    folder: Path, table: pd.DataFrame, class_names: list[str], ledger: Path, fingerprint: str
) -> dict[str, float]:
    """Add the test part to a folder of recipes, and a line to the ledger.

    Args:
        folder: What `write_folder` wrote.
        table: Predictions of the ensemble on images that are in no fold.
        class_names: The K names in order.
        ledger: Where openings of this test part are told.
        fingerprint: Of the test part.

    Returns:
        ``test/<metric>``.
    """
    metrics = write_tables({"test": table}, class_names, folder)
    _add_numbers({"metrics": metrics}, folder)
    record = hash_config(dict(yaml.safe_load((folder / RECORD).read_text(encoding="utf-8"))))
    record_opening(ledger, make_opening(folder.name, record, fingerprint, "auroc", metrics["test/auroc"]))
    return metrics


def write_page(folder: Path) -> Path:
    """The report of what `write_folder` wrote."""
    return write_report(read_run(folder), folder, Options(rule=read_config(folder)["operating_point"]))


def read_config(run: Path) -> dict[str, Any]:
    """The config of a run.

    Raises:
        DataError: The folder is no run.
    """
    path = run / CONFIG
    if not path.is_file():
        raise DataError(f"expected a run folder with {CONFIG}, but {run} has none; give the folder of a run")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def describe_config(ensemble: Ensemble) -> dict[str, Any]:
    """What of the first member's config holds for the ensemble."""
    first = read_config(ensemble.members[0].runs[0])
    names = list(dict.fromkeys(member.name for member in ensemble.members))
    kept = {key: first[key] for key in OF_THE_DATA}
    if POOLED in ensemble.tables:
        kept["data"] = kept["data"] | {"split_file": None}
    if not _same_labels(ensemble):
        kept["data"] = kept["data"] | {"one_class": None}
    return {"run_name": f"{ensemble.rule.name} ensemble of {', '.join(names)}", **kept}


def describe(ensemble: Ensemble) -> dict[str, Any]:
    """What the ensemble is made of, as plain values."""
    return {
        "rule": ensemble.rule.name,
        "settings": dict(ensemble.rule.settings),
        "class_names": ensemble.class_names,
        "members": [{"name": one.name, "runs": [str(run) for run in one.runs]} for one in ensemble.members],
        "notes": list(ensemble.notes),
    }


def fingerprint_of_test(ensemble: Ensemble) -> str:
    """The test part as the data reports of members with the same labels know it; of others, all of theirs in one.

    Raises:
        DataError: Members with the same labels were tested on other images.
    """
    reports = [(member, member.runs[0] / DATA_REPORT) for member in ensemble.members]
    told = {path: _read_fingerprint(path) for _, path in reports if path.exists()}
    found = {told[path] for member, path in reports if path in told and member.class_names == ensemble.class_names}
    if len(found) > 1:
        raise DataError(
            "expected members that were tested on the same images, but their files differ where their ids do not; "
            "combine runs on one dataset"
        )
    return found.pop() if found else hash_config({"parts": list(told.values())})


def shared_files(ensemble: Ensemble) -> list[str]:
    """Files of the first member that are true of all, as far as it has them."""
    names = ["environment.txt"]
    if POOLED not in ensemble.tables:
        names += [SPLIT_FILE, *([DATA_REPORT] if _same_labels(ensemble) else [])]
    return [name for name in names if (ensemble.members[0].runs[0] / name).exists()]


def write_tables(tables: Mapping[str, pd.DataFrame], class_names: list[str], folder: Path) -> dict[str, float]:
    """Write predictions, per study too where a study has several images; returns ``<part>/<metric>`` of all."""
    metrics: dict[str, float] = {}
    for part, table in tables.items():
        both = {part: table}
        if table.dropna(subset="study_id").duplicated(["run", "study_id"]).any():
            both[f"{part}_study"] = aggregate_by_study(table)
        for name, rows in both.items():
            write_predictions(rows, class_names, folder / f"predictions_{name}.csv")
            values = classification_metrics(*target_and_probs(rows), class_names)
            metrics |= {f"{name}/{key}": value for key, value in values.items()}
    return metrics


def write_bundle(ensemble: Ensemble, folder: Path, extras: Mapping[str, Any]) -> None:
    """The bundle: the members by the rule, and in a recipe all folds by a soft vote."""
    members, names = ensemble.members, ensemble.class_names
    parameters = sum(_count_parameters(bundle) for member in members for bundle in member.bundles)
    told = {**extras, "parameters": parameters, "notes": list(ensemble.notes)}
    if len(members) == 1:
        write_ensemble(folder, members[0].bundles, Rule("soft"), names, told, ensemble.fitted)
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        bundles = [_bundle_of(member, Path(place) / str(i)) for i, member in enumerate(members)]
        write_ensemble(folder, bundles, ensemble.rule, names, told, ensemble.fitted)


def _bundle_of(member: Member, place: Path) -> Path:
    """The bundle of a member, made in `place` where it has several nets."""
    if len(member.bundles) == 1:
        return member.bundles[0]
    write_ensemble(place, member.bundles, Rule("soft"), member.class_names, {})
    return place


def _count_parameters(bundle: Path) -> int:
    return int(read_description(bundle)["extras"].get("parameters", 0))


def _read_fingerprint(report: Path) -> str:
    return str(json.loads(report.read_text(encoding="utf-8"))["test_fingerprint"])


def _same_labels(ensemble: Ensemble) -> bool:
    return all(set(member.class_names) == set(ensemble.class_names) for member in ensemble.members)


def _add_numbers(values: Mapping[str, Any], folder: Path) -> None:
    """Add to ``metrics.json``, NaN as null."""
    path = folder / "metrics.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    metrics = {name: None if math.isnan(value) else value for name, value in values["metrics"].items()}
    written = known | dict(values) | {"metrics": known.get("metrics", {}) | metrics}
    path.write_text(json.dumps(written, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"expected a folder to write to, but {folder} is none ({error.strerror}); choose another --out"
        ) from error


def _write_yaml(values: Mapping[str, Any], path: Path) -> None:
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True), encoding="utf-8")
