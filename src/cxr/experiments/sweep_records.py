"""What a sweep found, for programs and tables: ``trials.csv`` and ``best.yaml`` in its folder.

Knows nothing of Hydra or training. Reads an Optuna study whose trials have the user attributes ``run_dir``,
``checkpoint`` (both relative to the sweep folder) and ``error``, and whose own attribute ``test`` holds the trial that
was tested and its metrics. Of several processes, the caller lets one at a time write.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from cxr.errors import DataError
from cxr.experiments.goals import Goals

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

BEST_FILE = "best.yaml"
TRIALS_FILE = "trials.csv"


@dataclass(frozen=True)
class BestTrial:
    """The best trial of a sweep.

    Attributes:
        study: Name of the study.
        number: Number of the trial.
        metric: Name of the objective.
        value: Its best validation value.
        params: Searched config keys and the values of this trial.
        run_dir: Run folder, relative to the sweep folder.
        checkpoint: Best checkpoint, relative to the sweep folder.
        test: Test metrics, or None while it was not tested.
    """

    study: str
    number: int
    metric: str
    value: float
    params: dict[str, Any]
    run_dir: str
    checkpoint: str
    test: dict[str, float] | None

    def headline_test(self) -> dict[str, float]:
        """The test metrics over all classes, without those of single ones (``test/recall/normal``)."""
        return {} if self.test is None else {key: value for key, value in self.test.items() if key.count("/") == 1}


def read_best(folder: Path) -> BestTrial:
    """Read the best trial of the sweep in `folder`.

    Raises:
        DataError: The folder holds no sweep with a finished trial, or its file is damaged.
    """
    path = folder / BEST_FILE
    if not path.exists():
        raise DataError(
            f"{folder} must be the folder of a sweep with a finished trial, but has no {BEST_FILE}; "
            "python run.py -m hparams_search=template_optuna makes one in logs/sweeps"
        )
    try:
        return BestTrial(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is damaged ({reason}); repeat the command of the sweep to write it anew") from error


def find_best(study: "Study", goals: Goals) -> BestTrial | None:
    """The best finished trial, or None while there is none, or where several goals name none."""
    trial = goals.best(study)
    if trial is None:
        return None
    tested = study.user_attrs.get("test", {})
    return BestTrial(
        study=study.study_name,
        number=trial.number,
        metric=goals.main,
        value=float(trial.values[0]),
        params=dict(trial.params),
        run_dir=trial.user_attrs["run_dir"],
        checkpoint=trial.user_attrs["checkpoint"],
        test=tested["metrics"] if tested.get("trial") == trial.number else None,
    )


def make_trials_table(study: "Study", goals: Goals) -> pd.DataFrame:
    """One row per trial: number, state, value, epochs, seconds, one column per searched key, checkpoint, error.

    With several goals there is a column for each in place of ``value``, and ``front`` says whether no other trial is
    better in every respect. A pruned trial has the value of its last epoch.
    """
    keys = list(dict.fromkeys(key for trial in study.trials for key in trial.params))
    names = ["value"] if len(goals.metrics) == 1 else [*goals.metrics, "front"]
    columns = ["number", "state", *names, "epochs", "seconds", *keys, "checkpoint", "error"]
    front = goals.front(study)
    rows = [_trial_row(trial, names) | {"front": trial.number in front} for trial in study.trials]
    return pd.DataFrame(rows, columns=columns)


def _trial_row(trial: "FrozenTrial", names: list[str]) -> dict[str, Any]:
    failed = trial.state.name == "FAIL"
    values = [None] * len(names) if trial.values is None else trial.values
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        **dict(zip(names, values, strict=False)),
        "epochs": len(trial.intermediate_values) if trial.intermediate_values else None,
        "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 1),
        **trial.params,
        "checkpoint": trial.user_attrs.get("checkpoint"),
        "error": trial.user_attrs.get("error", "interrupted") if failed else None,
    }


def write_records(study: "Study", folder: Path, goals: Goals) -> None:
    """Write ``trials.csv`` and, where there is a best trial, ``best.yaml``.

    Raises:
        DataError: The folder cannot be written.
    """
    best = find_best(study, goals)
    replace_file(folder / TRIALS_FILE, make_trials_table(study, goals).to_csv(index=False))
    if best is not None:
        replace_file(folder / BEST_FILE, yaml.safe_dump(asdict(best), sort_keys=False, allow_unicode=True))


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` in one step, so that a reader never meets half of it.

    Raises:
        DataError: The file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error}); free some space, then repeat the command: finished trials are kept"
        ) from error


def summarize(study: "Study", folder: Path, goals: Goals) -> str:
    """The standing of the sweep in a few lines for the terminal."""
    table = make_trials_table(study, goals)
    states = ", ".join(f"{count} {state}" for state, count in table["state"].value_counts().items())
    lines = [f"trials: {states if states else 'none'}; folder: {folder}"]
    if len(goals.metrics) > 1:
        lines += _tell_front(table, goals)
    best = find_best(study, goals)
    return "\n".join(lines if best is None else [*lines, *_tell_best(best, folder)])


def _tell_front(table: pd.DataFrame, goals: Goals) -> list[str]:
    front = table[table["front"]].sort_values(goals.main)
    rows = front[["number", *goals.metrics]].itertuples(index=False)
    told = [
        ", ".join(f"{name} {value:.4g}" for name, value in zip(goals.metrics, row[1:], strict=True)) for row in rows
    ]
    return [f"on the front: trial {number}: {text}" for number, text in zip(front["number"], told, strict=True)]


def _tell_best(best: BestTrial, folder: Path) -> list[str]:
    return [
        f"best: trial {best.number}, {best.metric} = {best.value:.4f}",
        *(f"  {key} = {value}" for key, value in best.params.items()),
        f"checkpoint: {folder / best.checkpoint}",
        *(f"  {key} = {value:.4f}" for key, value in best.headline_test().items()),
    ]
