"""What `cxr ensemble` does: runs, or plans of runs -> a folder that is evaluated, compared and explained like a run."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cxr.ensemble.fit import FIT, Weights, fit_ensemble
from cxr.ensemble.folder import read_config, write_folder, write_page
from cxr.ensemble.members import Member, read_recipe, read_run
from cxr.errors import ConfigError, DataError
from cxr.experiments.plan import PLAN_FILE


def make_ensemble(sources: Sequence[Path], rule: str, weights: str | None, out: Path) -> tuple[dict[str, Any], Path]:
    """Combine runs.

    Args:
        sources: Run folders, folders of plan=seeds (all its runs), or folders of plan=cv (its folds together).
        rule: 'soft', 'majority' or 'stack'.
        weights: ``fit``, or numbers with commas between them, one for each member.
        out: The folder to write.

    Returns:
        `members`, `rule`, `settings`, `notes` and `metrics`, and the report.

    Raises:
        CxrError: Something cannot be read, or does not go together.
    """
    members = [member for source in sources for member in read_members(source)]
    config = read_config(members[0].runs[0])
    ensemble = fit_ensemble(members, rule, parse_weights(weights), out.name, config["operating_point"])
    metrics = write_folder(ensemble, out)
    told = {
        "members": [one.name if len(one.runs) > 1 else f"{one.name} {one.runs[0].name}" for one in ensemble.members],
        "rule": ensemble.rule.name,
        "settings": ensemble.rule.settings,
        "notes": ensemble.notes,
        "metrics": metrics,
    }
    return told, write_page(out)


def read_members(source: Path) -> Iterator[Member]:
    """A run by itself, each run of plan=seeds, or plan=cv as one.

    Raises:
        ConfigError: A plan of another kind.
        DataError: A plan or a run is not finished.
    """
    plan = read_plan(source)
    if plan is None:
        yield read_run(source, name_of(source))
        return
    if not (source / "runs.csv").is_file():
        raise DataError(
            f"expected a finished plan, but {source} has no runs.csv; continue it with plan.folder={source}"
        )
    runs = [source / str(run) for run in pd.read_csv(source / "runs.csv")["run"]]
    if plan == "cv":
        yield read_recipe(source, name_of(runs[0]))
    elif plan == "seeds":
        yield from (read_run(run, name_of(run)) for run in runs)
    else:
        raise ConfigError(f"expected runs, plan=cv or plan=seeds, but {source} is of plan={plan}; see its own folders")


def read_plan(source: Path) -> str | None:
    """The name of the plan in a folder; None where there is none."""
    record = source / PLAN_FILE
    if not record.is_file():
        return None
    return str(yaml.safe_load(record.read_text(encoding="utf-8"))["config"]["plan"]["name"])


def name_of(run: Path) -> str:
    """The recipe of a run; of a run in a plan the plan's."""
    config = read_config(run)
    study = config.get("study_name")
    return str(config["run_name"] if study is None else study)


def parse_weights(text: str | None) -> Weights:
    """``0.5,0.3,0.2`` as numbers.

    Raises:
        ConfigError: Something else.
    """
    if text is None or text == FIT:
        return text
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"expected --weights to be {FIT!r} or numbers such as 0.5,0.3,0.2, got {text!r}; give one for each member"
        ) from None
