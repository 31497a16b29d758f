"""The best of a race as one bundle, judged out of fold and, where the dataset has a test part, on that.

Classical members are fitted again on all rows of the folds: their settings carry over, they need no validation part,
and one model takes the place of as many as there are folds. CNNs need one, so the nets of the folds are kept and vote.
The out-of-fold numbers are those of models of fewer rows, so they err on the low side for what is refitted.
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
from omegaconf import DictConfig
from optuna.trial import FrozenTrial

from cxr.classical.convert import check_parity, to_onnx
from cxr.data.cohort import fingerprint
from cxr.evaluation.calibration import fit_temperature
from cxr.evaluation.ledger import hash_config, make_opening, record_opening
from cxr.evaluation.predictions import make_predictions, read_predictions
from cxr.evaluation.report.collect import Options, target_and_probs
from cxr.evaluation.report.material import Material, ledger_path, read_questions
from cxr.evaluation.report.page import write_report
from cxr.experiments.automl.contestants import VIEW, Classical, SmallCnn
from cxr.experiments.automl.mixtures import Choice, Library, choose
from cxr.experiments.automl.search import Contestant, Race
from cxr.experiments.automl.task import Probs, Task
from cxr.inference.bundle import Fitted, load_bundle, write_ensemble
from cxr.inference.classical_predictor import write_classical
from cxr.inference.combine import Rule, to_logits
from cxr.training.building import plain
from cxr.training.evaluate import OF_THIS_RUN, choose_points
from cxr.training.run_folder import RunFolder, write_json

log = logging.getLogger(__name__)

SEARCHED = "trials"


@dataclass(frozen=True)
class Conclusion:
    """What a race came to.

    Attributes:
        choice: The winner.
        library: What it was chosen from.
        metrics: ``val/...`` out of fold, and ``test/...`` where the test part was opened.
    """

    choice: Choice
    library: Library
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
        TrainingError: A graph does not answer as its model.
    """
    library, folder = read_library(race), RunFolder(race.folder)
    choice = choose(library, ensemble_size)
    temperature = _calibrate(choice.probs[choice.strategy], race.task)
    write_json(
        {SEARCHED: len(library.names), "winner": describe(choice, library), "temperature": temperature}, folder.metrics
    )
    table = race.task.tabulate(
        choice.probs[choice.strategy], folder.root.name, 1.0 if temperature is None else temperature
    )
    metrics = folder.write_evaluation(table, race.task.class_names, "val")
    folder.write_metrics(metrics)
    fitted = Fitted(temperature, choose_points(folder, config.operating_point))
    _write_bundle(race, choice, library, fitted, metrics)
    if test is not None and len(test):
        metrics |= _open_test(race.task, folder, config, test)
        folder.write_metrics(metrics)
    write_report(
        Material(f"AutoML {folder.root.name}", read_questions(folder.root)), folder.root,
        Options(rule=config.operating_point),
    )  # fmt: skip
    return Conclusion(choice, library, metrics)


def concluded_trials(folder: Path) -> int | None:
    """How many trials the conclusion in a folder is made of; None where there is none."""
    path = RunFolder(folder).metrics
    if not path.exists() or not (folder / "report.html").exists():
        return None
    return int(json.loads(path.read_text())[SEARCHED])


def describe(choice: Choice, library: Library) -> dict[str, Any]:
    """Strategy, rule and members as plain values."""
    names = [library.names[place] for place in choice.mixture.members]
    settings = choice.mixture.rule.settings
    return {"strategy": choice.strategy, "rule": choice.mixture.rule.name, "members": names, **settings}


def _calibrate(probs: Probs, task: Task) -> float | None:
    """The temperature of out-of-fold probabilities; None where there is none to fit."""
    found = fit_temperature(task.labels, to_logits(probs))
    return None if found.at_bound else found.value


def _write_bundle(race: Race, choice: Choice, library: Library, fitted: Fitted, metrics: Mapping[str, float]) -> None:
    members = race.folder / "members"
    members.mkdir(exist_ok=True)
    contestants = {one.name: one for one in race.contestants}
    trials = {f"{name}_{one.number}": (contestants[name], one) for name, one in race.trials()}
    bundles = [
        _write_member(*trials[library.names[place]], members / library.names[place]) for place in choice.mixture.members
    ]
    extras = {
        "run": race.folder.name,
        "data_fingerprint": fingerprint(race.task.samples),
        "versions": {name: version(name) for name in ("cxr-lab", "scikit-learn", "onnxruntime")},
        "metrics": metrics,
        "strategy": choice.strategy,
    }
    write_ensemble(race.folder / "bundle", bundles, choice.mixture.rule, race.task.class_names, extras, fitted)


def _write_member(contestant: Contestant, trial: FrozenTrial, bundle: Path) -> Path:
    """The bundle of one trial."""
    task, params = contestant.task, _told_params(trial)
    extras = {"run": bundle.name, "measured": trial.user_attrs["measured"]}
    if isinstance(contestant, SmallCnn):
        folds = [contestant.run(trial.number, fold) / "bundle" for fold in range(task.num_folds)]
        write_ensemble(bundle, folds, Rule("soft"), task.class_names, extras)
        return bundle
    assert isinstance(contestant, Classical)
    view = contestant.views[params[VIEW]]
    model = contestant.fit(params, np.ones(len(task.labels), dtype=bool))
    graph = to_onnx(model, view.table.shape[1])
    difference = check_parity(model, graph, view.table, bundle.name)
    log.info("%s as ONNX: probabilities within %.1g of scikit-learn's", bundle.name, difference)
    own = {key: value for key, value in params.items() if key != VIEW}
    write_classical(bundle, graph, contestant.name, own, view.features, task.class_names, extras, view.net)
    return bundle


def _told_params(trial: FrozenTrial) -> dict[str, Any]:
    return dict(trial.params)


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
