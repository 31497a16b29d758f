"""What `cxr compare` does: several runs, plans, or tables of predictions, on the same images -> which is better."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from cxr.errors import DataError
from cxr.evaluation.compare import Table, compare
from cxr.evaluation.foreign import read_foreign
from cxr.evaluation.predictions import read_predictions
from cxr.evaluation.report.comparison import Compared, write_comparison

METRICS = ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "accuracy", "f1_macro")
PREDICTIONS, OUT_OF_FOLD = "predictions_test.csv", "predictions_oof.csv"
CONFIG_FILE, PLAN_FILE = "config.yaml", "plan.yaml"
"""As in `cxr.experiments.plan`, whose import takes seconds and is made for plans alone."""


@dataclass(frozen=True)
class Run:
    """One model's answers to the images that all are compared on.

    Attributes:
        name: Told apart from all others.
        recipe: What runs that are pooled have in common.
        table: Its predictions and class names.
        folder: Where its bundle may lie.
        folds: Whether several nets gave the answers, each for the fold that it was not trained on.
    """

    name: str
    recipe: str
    table: Table
    folder: Path
    folds: bool = False


def compare_sources(
    sources: Sequence[Path], class_names: Sequence[str] | None, pool: bool, costs: bool, out: Path, draws: int
) -> Compared:
    """Compare runs, plans and tables with the first of them.

    Args:
        sources: Run folders, plan folders, or predictions on test images as CSV; two runs or more in all.
        class_names: For tables without a sidecar.
        pool: Take runs of one recipe that differ in their seed, and all runs of a plan, as one, with their spread.
        costs: Tell parameters, size, operations and latency of runs, which loads their nets.
        out: Where the table is written as Markdown, CSV and HTML, and the figure.
        draws: Of the bootstrap.

    Raises:
        CxrError: The sources are not about the same images and classes, or cannot be read.
    """
    runs = list_runs(sources, class_names)
    recipes = pool_recipes(runs) if pool else None
    found = compare({run.name: run.table for run in runs}, METRICS, recipes=recipes, draws=draws)
    compared = Compared(found, measure_costs(runs) if costs else pd.DataFrame(), list_notes(runs))
    write_comparison(compared, out)
    return compared


def list_runs(sources: Sequence[Path], class_names: Sequence[str] | None) -> list[Run]:
    """What there is to compare, each run of a plan by itself.

    A name is as short as can be told apart: the recipe where no two sources have the same, else with the folder's name.

    Args:
        sources: See `compare_sources`.
        class_names: For tables without a sidecar.

    Raises:
        DataError: The same source twice, or one that cannot be read.
    """
    recipes = [recipe_of(source) for source in sources]
    runs: list[Run] = []
    for recipe, source in zip(recipes, sources, strict=True):
        name = recipe if recipes.count(recipe) == 1 else f"{recipe} {source.absolute().name}"
        if is_plan(source):
            runs += read_plan(source, name)
        else:
            runs.append(Run(name, recipe, read_source(source, class_names), source))
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"expected different runs, got {', '.join(twice)} more than once; name each once")
    return runs


def is_plan(source: Path) -> bool:
    """Whether a source is the folder of a plan with runs; that of AutoML is a run itself."""
    return (source / PLAN_FILE).exists() and not (source / CONFIG_FILE).exists()


def recipe_of(source: Path) -> str:
    """The recipe of a run or of a plan, or the name of a table."""
    configs = sorted(source.glob(f"*/{CONFIG_FILE}" if is_plan(source) else CONFIG_FILE))
    return str(yaml.safe_load(configs[0].read_text())["run_name"]) if configs else source.stem


def read_plan(folder: Path, name: str) -> list[Run]:
    """The runs of a plan: each of several seeds; of a cross-validation each repeat, its folds as one table.

    Args:
        folder: Of the plan.
        name: What to call the plan.

    Raises:
        DataError: The plan is not finished, or a table is not sound.
    """
    from cxr.experiments.plan import PlanFolder

    plan = PlanFolder(folder)
    if plan.kind() == "cv":
        return _read_folds(folder, name)
    return [Run(f"{name} {run}", name, read_source(folder / run, None), folder / run) for run in plan.run_names()]


def _read_folds(folder: Path, name: str) -> list[Run]:
    table, class_names = _read(folder, OUT_OF_FOLD, "finish the plan with plan.folder")
    repeat = table["run"].str.replace(r"_?fold_\d+$", "", regex=True)
    return [
        Run(f"{name} {part}".strip(), name, (rows, class_names), folder / rows["run"].iloc[0], folds=True)
        for part, rows in table.groupby(repeat, sort=False)
    ]


def read_source(source: Path, class_names: Sequence[str] | None) -> Table:
    """The predictions on test images of a run or a table.

    Raises:
        DataError: There are none, or they are not sound.
    """
    if not source.is_dir():
        return read_foreign(source, class_names, "test")
    return _read(source, PREDICTIONS, "finish the run with test=true")


def _read(folder: Path, file: str, remedy: str) -> Table:
    if not (folder / file).exists():
        raise DataError(f"expected {file} in {folder}, but there is none; {remedy}")
    return read_predictions(folder / file)


def pool_recipes(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Recipe -> its runs."""
    recipes: dict[str, list[str]] = {}
    for run in runs:
        recipes.setdefault(run.recipe, []).append(run.name)
    return recipes


def list_notes(runs: Sequence[Run]) -> list[str]:
    """What a reader must know of how the answers came about."""
    folds = [run.name for run in runs if run.folds]
    if not folds:
        return []
    return [
        f"{', '.join(folds)}: cross-validation. Each image was answered by the net that had not seen its patient; "
        "intervals and tests take these nets as given, and say nothing of other training data."
    ]


def measure_costs(runs: Sequence[Run]) -> pd.DataFrame:
    """run, parameters, megabytes, gflops, latency_ms of each run with a bundle of nets; of folds, of the first net."""
    from cxr.inference.bundle import load_bundle
    from cxr.inference.cost import has_cost, measure_cost

    bundles = {run.name: run.folder / "bundle" for run in runs if (run.folder / "bundle").is_dir()}
    predictors = {name: load_bundle(bundle) for name, bundle in bundles.items()}
    rows = [{"run": name, **vars(measure_cost(one))} for name, one in predictors.items() if has_cost(one)]
    return pd.DataFrame(rows)
