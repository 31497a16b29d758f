"""What `cxr compare` does: several runs, or tables of predictions, on the same test images -> which is better."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from cxr.errors import DataError
from cxr.evaluation.compare import Table, compare
from cxr.evaluation.foreign import read_foreign
from cxr.evaluation.predictions import read_predictions
from cxr.evaluation.report.comparison import Compared, write_comparison

METRICS = ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "accuracy", "f1_macro")
PREDICTIONS = "predictions_test.csv"


def compare_sources(
    sources: Sequence[Path], class_names: Sequence[str] | None, pool: bool, costs: bool, out: Path, draws: int
) -> Compared:
    """Compare runs and tables with the first of them.

    Args:
        sources: Run folders, or predictions on test images as CSV; two or more.
        class_names: For tables without a sidecar.
        pool: Take runs of one recipe that differ in their seed as one, with their spread.
        costs: Tell parameters, size, operations and latency of runs, which loads their nets.
        out: Where the table is written as Markdown, CSV and HTML.
        draws: Of the bootstrap.

    Raises:
        CxrError: The sources are not about the same test images and classes, or cannot be read.
    """
    names = name_sources(sources)
    tables = {name: read_source(source, class_names) for name, source in names.items()}
    recipes = pool_recipes(names) if pool else None
    found = compare(tables, METRICS, recipes=recipes, draws=draws)
    compared = Compared(found, measure_costs(names) if costs else pd.DataFrame())
    write_comparison(compared, out)
    return compared


def name_sources(sources: Sequence[Path]) -> dict[str, Path]:
    """A short name for each: the recipe where no two have the same, else with the folder's name.

    Raises:
        DataError: The same source twice.
    """
    short = [recipe_of(source) for source in sources]
    names = [
        name if short.count(name) == 1 else f"{name} {source.absolute().name}"
        for name, source in zip(short, sources, strict=True)
    ]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"expected different runs, got {', '.join(twice)} more than once; name each once")
    return dict(zip(names, sources, strict=True))


def recipe_of(source: Path) -> str:
    """The recipe of a run, or the name of a table."""
    config = source / "config.yaml"
    return str(yaml.safe_load(config.read_text())["run_name"]) if config.exists() else source.stem


def pool_recipes(names: dict[str, Path]) -> dict[str, list[str]]:
    """Recipe -> its runs."""
    recipes: dict[str, list[str]] = {}
    for name, source in names.items():
        recipes.setdefault(recipe_of(source), []).append(name)
    return recipes


def read_source(source: Path, class_names: Sequence[str] | None) -> Table:
    """The predictions on test images of a run or a table.

    Raises:
        DataError: There are none, or they are not sound.
    """
    if not source.is_dir():
        return read_foreign(source, class_names, "test")
    if not (source / PREDICTIONS).exists():
        raise DataError(f"expected {PREDICTIONS} in {source}, but there is none; finish the run with test=true")
    return read_predictions(source / PREDICTIONS)


def measure_costs(names: dict[str, Path]) -> pd.DataFrame:
    """run, parameters, megabytes, gflops, latency_ms of each run that has a bundle."""
    from cxr.inference.bundle import load_bundle
    from cxr.inference.cost import measure_cost

    bundles = {name: source / "bundle" for name, source in names.items() if (source / "bundle").is_dir()}
    rows = [{"run": name, **vars(measure_cost(load_bundle(bundle)))} for name, bundle in bundles.items()]
    return pd.DataFrame(rows)
