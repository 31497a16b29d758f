"""What a sweep found, for programs and tables: ``trials.csv`` and ``best.yaml`` in its folder.

Knows nothing of Hydra or training. Reads an Optuna study whose trials have the user attributes ``run_dir``,
``checkpoint`` (both relative to the sweep folder) and ``error``, and whose own attribute ``test`` holds the trial that
was tested and its metrics.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from cxr.errors import DataError

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


def find_best(study: "Study", metric: str) -> BestTrial | None:
    """The best finished trial, or None while there is none."""
    if not any(trial.state.name == "COMPLETE" for trial in study.trials):
        return None
    trial = study.best_trial
    tested = study.user_attrs.get("test", {})
    return BestTrial(
        study=study.study_name,
        number=trial.number,
        metric=metric,
        value=float(trial.value),
        params=dict(trial.params),
        run_dir=trial.user_attrs["run_dir"],
        checkpoint=trial.user_attrs["checkpoint"],
        test=tested["metrics"] if tested.get("trial") == trial.number else None,
    )


def make_trials_table(study: "Study") -> pd.DataFrame:
    """One row per trial: number, state, value, seconds, one column per searched key, checkpoint, error."""
    keys = list(dict.fromkeys(key for trial in study.trials for key in trial.params))
    columns = ["number", "state", "value", "seconds", *keys, "checkpoint", "error"]
    return pd.DataFrame([_trial_row(trial) for trial in study.trials], columns=columns)


def _trial_row(trial: "FrozenTrial") -> dict[str, Any]:
    failed = trial.state.name == "FAIL"
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value,
        "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 1),
        **trial.params,
        "checkpoint": trial.user_attrs.get("checkpoint"),
        "error": trial.user_attrs.get("error", "interrupted") if failed else None,
    }


def write_records(study: "Study", folder: Path, metric: str) -> None:
    """Write ``trials.csv`` and, once a trial has finished, ``best.yaml``.

    Raises:
        DataError: The folder cannot be written.
    """
    best = find_best(study, metric)
    replace_file(folder / TRIALS_FILE, make_trials_table(study).to_csv(index=False))
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


def summarize(study: "Study", folder: Path, metric: str) -> str:
    """The standing of the sweep in a few lines for the terminal."""
    table = make_trials_table(study)
    states = ", ".join(f"{count} {state}" for state, count in table["state"].value_counts().items())
    best = find_best(study, metric)
    if best is None:
        return f"trials: {states if states else 'none'}; folder: {folder}"
    lines = [
        f"trials: {states}; folder: {folder}",
        f"best: trial {best.number}, {metric} = {best.value:.4f}",
        *(f"  {key} = {value}" for key, value in best.params.items()),
        f"checkpoint: {folder / best.checkpoint}",
        *(f"  {key} = {value:.4f}" for key, value in best.headline_test().items()),
    ]
    return "\n".join(lines)
