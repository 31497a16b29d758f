"""The best of a race as one bundle, judged out of fold and, where the dataset has a test part, on that.

Members are what their contestants make of a trial. The out-of-fold numbers are those of models of fewer rows, so they
err on the low side for what is fitted again on all of them.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from omegaconf import DictConfig

from cxr.classical.convert import ParityError
from cxr.data.cohort import fingerprint
from cxr.ensemble.folder import OF_THE_DATA, RECORD
from cxr.errors import TrainingError
from cxr.evaluation.calibration import fit_scaling
from cxr.evaluation.ledger import hash_config, make_opening, record_opening
from cxr.evaluation.predictions import make_predictions, read_predictions, target_and_probs
from cxr.evaluation.report.collect import Options
from cxr.evaluation.report.decisions import describe_abstention, describe_points
from cxr.evaluation.report.material import ledger_path, read_questions, read_run
from cxr.evaluation.report.page import write_report
from cxr.experiments.automl.mixtures import Choice, Library, choose
from cxr.experiments.automl.search import Race
from cxr.experiments.automl.task import Task
from cxr.experiments.sweep_records import replace_file
from cxr.inference.bundle import Fitted, load_bundle, write_ensemble
from cxr.inference.combine import to_logits
from cxr.scaling import UNSCALED, scaling_to_json
from cxr.training.building import plain
from cxr.training.evaluate import OF_THIS_RUN
from cxr.training.run_folder import RunFolder, write_json

log = logging.getLogger(__name__)

SEARCHED = "trials"


@dataclass(frozen=True)
class Proved:
    """A winner all of whose members are there as bundles.

    Attributes:
        choice: The winner.
        library: What it was chosen from.
        bundles: Of its members, in their order.
        left_out: Trials that could not be kept as a bundle, with the reason.
    """

    choice: Choice
    library: Library
    bundles: Sequence[Path]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Conclusion(Proved):
    """What a race came to.

    Attributes:
        metrics: ``val/...`` out of fold, and ``test/...`` where the test part was opened.
    """

    metrics: Mapping[str, float]


def read_library(race: Race) -> Library:
    """The tables of all trials that came to an end."""
    trials = race.trials()
    probs = [target_and_probs(read_predictions(race.table(name, one.number))[0])[1] for name, one in trials]
    names = [f"{name}_{one.number}" for name, one in trials]
    return Library(names, [name for name, _ in trials], np.stack(probs), race.task)


def conclude(race: Race, config: DictConfig, ensemble_size: int, test: pd.DataFrame | None) -> Conclusion:
    """Choose, refit, write the bundle, measure and report.

    Args:
        race: With at least one trial that came to an end.
        config: The composed config.
        ensemble_size: Rounds of the greedy vote.
        test: The samples of the dataset's test part, which are opened; None leaves it closed.

    Raises:
        TrainingError: No trial can be kept as a bundle.
    """
    folder, proved = RunFolder(race.folder), choose_proved(race, ensemble_size)
    choice, library = proved.choice, proved.library
    probs = choice.probs[choice.strategy]
    scaling = fit_scaling(race.task.labels, to_logits(probs))
    record = {SEARCHED: len(race.trials()), "winner": describe(choice, library), **scaling_to_json(scaling)}
    write_json(record, folder.metrics)
    table = race.task.tabulate(probs, folder.root.name, UNSCALED if scaling is None else scaling)
    _write_records(folder, config, describe(choice, library))
    metrics = folder.write_evaluation(table, race.task.class_names, "val")
    folder.write_metrics(metrics)
    questions = read_questions(folder.root, ("val",))
    fitted = Fitted(scaling, describe_points(questions, config.operating_point), describe_abstention(questions))
    _write_bundle(race, proved, fitted, metrics)
    if test is not None:
        metrics |= _open_test(race.task, folder, config, test)
        folder.write_metrics(metrics)
    write_report(read_run(folder.root), folder.root, Options(rule=config.operating_point))
    return Conclusion(choice, library, proved.bundles, proved.left_out, metrics)


def choose_proved(race: Race, ensemble_size: int) -> Proved:
    """Choose, and write the bundles of the members; a trial that cannot be kept is left out, and chosen anew.

    Raises:
        TrainingError: No trial is left.
    """
    library, written, left_out = read_library(race), dict[str, Path](), dict[str, str]()
    while library.names:
        choice = choose(library, ensemble_size)
        names = [library.names[place] for place in choice.mixture.members]
        for name in (one for one in names if one not in written):
            try:
                written[name] = _write_member(race, name)
            except ParityError as error:
                log.warning("%s is left out, and the winner chosen from the others: %s", name, error)
                library, left_out[name] = library.without(name), str(error)
                break
        else:
            return Proved(choice, library, [written[name] for name in names], left_out)
    reason = list(left_out.values())[-1]
    raise TrainingError(f"expected a trial that can be kept as a bundle, but none of {len(left_out)} can: {reason}")


def is_concluded(race: Race, test: pd.DataFrame | None) -> bool:
    """Whether a conclusion is there that all trials went into, the test part opened if there is one."""
    path = RunFolder(race.folder).metrics
    if not path.exists() or not (race.folder / "report.html").exists():
        return False
    found = json.loads(path.read_text())
    was_tested = test is None or any(name.startswith("test/") for name in found["metrics"])
    return was_tested and found[SEARCHED] == len(race.trials())


def describe(choice: Choice, library: Library) -> dict[str, Any]:
    """Strategy, rule and members as plain values."""
    names = [library.names[place] for place in choice.mixture.members]
    settings = choice.mixture.rule.settings
    return {"strategy": choice.strategy, "rule": choice.mixture.rule.name, "members": names, **settings}


def _write_records(folder: RunFolder, config: DictConfig, winner: Mapping[str, Any]) -> None:
    """What makes the folder an ensemble's, which commands take as they take a run."""
    values = plain(config)
    kept = {"run_name": config.run_name, **{key: values[key] for key in OF_THE_DATA}}
    replace_file(folder.config, yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))
    replace_file(folder.root / RECORD, yaml.safe_dump(dict(winner), sort_keys=False, allow_unicode=True))


def _write_member(race: Race, name: str) -> Path:
    """The bundle of a trial."""
    (race.folder / "members").mkdir(exist_ok=True)
    contestants = {one.name: one for one in race.contestants}
    trials = {f"{name}_{one.number}": (contestants[name], one) for name, one in race.trials()}
    contestant, trial = trials[name]
    bundle = race.folder / "members" / name
    contestant.write(trial.params, trial.number, bundle, {"run": name, "measured": trial.user_attrs["measured"]})
    return bundle


def _write_bundle(race: Race, proved: Proved, fitted: Fitted, metrics: Mapping[str, float]) -> None:
    """The bundle of the winner, made of those of its members."""
    choice = proved.choice
    extras = {
        "run": race.folder.name,
        "data_fingerprint": fingerprint(race.task.samples),
        "versions": {name: version(name) for name in ("cxr-lab", "scikit-learn", "onnxruntime")},
        "metrics": metrics,
        "strategy": choice.strategy,
    }
    write_ensemble(race.folder / "bundle", proved.bundles, choice.mixture.rule, race.task.class_names, extras, fitted)


def _open_test(task: Task, folder: RunFolder, config: DictConfig, test: pd.DataFrame) -> dict[str, float]:
    """Predict the test part by the bundle as it will be used, and tell the ledger."""
    predictor = load_bundle(folder.root / "bundle")
    found = predictor.predict(test["image_path"].tolist())
    probs = found[[f"prob_{label}" for label in range(len(task.class_names))]].to_numpy(np.float64)
    table = make_predictions(task.tell_ids(test), to_logits(probs), task.class_names, "test", folder.root.name)
    metrics = folder.write_evaluation(table, task.class_names, "test")
    values = plain(config)
    recipe = {key: value for key, value in values.items() if key not in OF_THIS_RUN}
    opening = make_opening(folder.root.name, hash_config(recipe), fingerprint(test), "auroc", metrics["test/auroc"])
    record_opening(ledger_path(values), opening)
    return metrics
