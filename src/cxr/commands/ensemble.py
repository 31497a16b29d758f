"""What `cxr ensemble` does: runs, or plans of runs -> a folder that is evaluated, compared and explained like a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from omegaconf import OmegaConf

from cxr.commands.snapshots import make_snapshots
from cxr.data.cohort import fingerprint
from cxr.data.identity import hash_ids
from cxr.ensemble.fit import FIT, Weights, fit_ensemble
from cxr.ensemble.folder import CONFIG, add_test, read_config, write_folder, write_page
from cxr.ensemble.members import Member, read_recipe, read_run
from cxr.errors import ConfigError, DataError
from cxr.evaluation.predictions import make_predictions
from cxr.evaluation.report.material import ledger_path
from cxr.experiments.plan import PLAN_FILE, PlanFolder
from cxr.inference.bundle import load_bundle
from cxr.inference.combine import to_logits


def make_ensemble(
    sources: Sequence[Path], rule: str, weights: str | None, snapshots: bool, test: bool, out: Path
) -> tuple[dict[str, Any], Path]:
    """Combine runs.

    Args:
        sources: Run folders, folders of plan=seeds (all its runs), or folders of plan=cv (its folds together).
        rule: 'soft', 'majority' or 'stack'.
        weights: ``fit``, or numbers with commas between them, one for each member.
        snapshots: Combine the kept checkpoints of each run.
        test: Of plan=cv: also test on the images that are in no fold.
        out: The folder to write.

    Returns:
        `members`, `rule`, `settings`, `notes` and `metrics`, and the report.

    Raises:
        CxrError: Something cannot be read, or does not go together.
    """
    if (out / CONFIG).exists():
        raise DataError(f"expected a new folder, but {out} holds a run or an ensemble; choose another --out")
    if snapshots:
        sources = [folder for source in sources for folder in make_snapshots(source, out / "snapshots")]
    members = [member for source in sources for member in read_members(source)]
    check_different([run for member in members for run in member.runs])
    config = read_config(members[0].runs[0])
    ensemble = fit_ensemble(members, rule, parse_weights(weights), out.name, config["operating_point"])
    outside = read_outside(sources[0]) if test else None
    metrics = write_folder(ensemble, out)
    if outside is not None:
        metrics |= open_test(outside, ensemble.class_names, out)
    told = {
        "members": [one.name if len(one.runs) > 1 else f"{one.name} {one.runs[0].name}" for one in ensemble.members],
        "rule": ensemble.rule.name,
        "settings": ensemble.rule.settings,
        "notes": ensemble.notes,
        "metrics": metrics,
    }
    return told, write_page(out)


def check_different(runs: Sequence[Path]) -> None:
    """Raise ConfigError where a run is there twice, which would count it twice."""
    places = [run.resolve() for run in runs]
    twice = [run for number, run in enumerate(runs) if places[number] in places[:number]]
    if twice:
        raise ConfigError(f"expected different runs, got {twice[0]} twice; name each once")


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
    if plan not in ("cv", "seeds"):
        raise ConfigError(f"expected runs, plan=cv or plan=seeds, but {source} is of plan={plan}; see its own folders")
    if not (source / "runs.csv").is_file():
        raise DataError(
            f"expected a finished plan, but {source} has no runs.csv; continue it with plan.folder={source}"
        )
    runs = [source / str(run) for run in pd.read_csv(source / "runs.csv")["run"]]
    if plan == "cv":
        yield read_recipe(source, name_of(runs[0]))
    else:
        yield from (read_run(run, name_of(run)) for run in runs)


@dataclass(frozen=True)
class Outside:
    """Samples that are in no fold, their ids as they may be told, and where their openings are."""

    samples: pd.DataFrame
    fingerprint: str
    ledger: Path


def read_outside(plan: Path) -> Outside:
    """The test part that a cross-validation left alone.

    Raises:
        ConfigError: The folder is of another plan, or of none.
        DataError: Every image is in a fold.
    """
    from cxr.training.sources import id_salt, read_pool

    if read_plan(plan) != "cv":
        raise ConfigError(f"expected --test with folders of plan=cv, whose test part is still closed, got {plan}")
    fold = str(pd.read_csv(plan / "runs.csv")["run"][0])
    config = OmegaConf.create(read_config(plan / fold))
    config.data.split_file = yaml.safe_load((plan / PLAN_FILE).read_text(encoding="utf-8"))["config"]["data"][
        "split_file"
    ]
    samples, _ = read_pool(config)
    rows = samples[samples["split"] == "test"] if "split" in samples else samples.head(0)
    if rows.empty:
        raise DataError(
            f"expected a test part that is in no fold of {plan}, but all images are in folds; leave out --test, or "
            "train with an official test part or a data.split_file"
        )
    told, salt = rows, id_salt(config)
    if salt is not None:
        told = rows.assign(**{name: hash_ids(rows[name], salt) for name in ("sample_id", "patient_id", "study_id")})
    ledger = ledger_path({"paths": config.paths, "data": config.data})
    return Outside(told.reset_index(drop=True), fingerprint(rows), ledger)


def open_test(outside: Outside, class_names: list[str], folder: Path) -> dict[str, float]:
    """Open the test part for the ensemble in a folder; returns ``test/<metric>``."""
    predicted = load_bundle(folder / "bundle").predict(outside.samples["image_path"].tolist())
    probs = predicted[[f"prob_{k}" for k in range(len(class_names))]].to_numpy()
    table = make_predictions(outside.samples, to_logits(probs), class_names, "test", folder.name)
    return add_test(folder, table, class_names, outside.ledger, outside.fingerprint)


def read_plan(source: Path) -> str | None:
    """The name of the plan in a folder; None where there is none."""
    plan = PlanFolder(source)
    return plan.kind() if plan.record.is_file() else None


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
