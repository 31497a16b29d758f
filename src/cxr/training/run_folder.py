"""What a run leaves on disk beside its checkpoints. Knows nothing of Lightning or of how the numbers were made."""

import json
import logging
import math
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import yaml
from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.logging import RichHandler

from cxr.data.splits import SPLIT_FILE
from cxr.errors import DataError, TrainingError
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.predictions import aggregate_by_study, has_studies, target_and_probs, write_predictions
from cxr.evaluation.report.material import BASELINES
from cxr.scaling import Scaling, scaling_to_json
from cxr.training.summary import HEADLINES

log = logging.getLogger(__name__)

FOREIGN = "py.warnings"
PACKAGE = Path(__file__).parents[1]
SECONDS_TO_WAIT = 10.0
"""For a folder that another process holds: helpers of a killed one take a moment to end."""


def start_logging(run_dir: Path) -> None:
    """Log to the terminal, in colour where it is one, and to ``run.log``; of several devices the first one does.

    No warning is silenced: those of this package go to both places, those of other packages to ``run.log``.
    """
    if rank_zero_only.rank > 0:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(run_dir / "run.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[terminal_handler(), file], force=True)
    warnings.showwarning = log_warning
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its INFO lines advertise


def terminal_handler() -> logging.Handler:
    """A coloured handler for a terminal, a plain one for a pipe; neither shows the warnings of other packages."""
    if sys.stderr.isatty():
        console = Console(stderr=True)
        handler: logging.Handler = RichHandler(console=console, show_path=False, log_time_format="[%H:%M:%S]")
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: record.name != FOREIGN)
    return handler


def log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """What `warnings.showwarning` is set to: a line in the log instead of a line of code on stderr."""
    if PACKAGE in Path(filename).parents:
        logging.getLogger("cxr").warning("%s", message)
    else:
        logging.getLogger(FOREIGN).warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)


class RunFolder:
    """One run on disk: config.yaml, environment.txt, split.csv, data_report.json, history.csv, checkpoints/,
    metrics.json, predictions_*.csv, figures/, bundle/.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.data_report = root / "data_report.json"
        self.environment = root / "environment.txt"
        self.split = root / SPLIT_FILE
        self.metrics = root / "metrics.json"
        self.figures = root / "figures"
        self.last_checkpoint = root / "checkpoints" / "last.ckpt"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs from writing here; of several devices the first one does. A kill lets go of the folder.

        Raises:
            TrainingError: Another run writes here.
        """
        if rank_zero_only.rank > 0:
            yield
            return
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=SECONDS_TO_WAIT)
        except NotImplementedError:
            log.warning("%s is on a disk without locks: see to it that no other run writes there", self.root)
        except Timeout as error:
            raise TrainingError(
                f"another run is writing to {self.root}; wait for its end, or choose another folder: without "
                "hydra.run.dir and ckpt_path every run has its own"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def write_inputs(self, config: dict[str, Any], data_report: dict[str, Any]) -> None:
        """Config, environment and data report."""
        self.figures.mkdir(parents=True, exist_ok=True)
        write_whole(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), self.config)
        self.environment.write_text("\n".join(environment()) + "\n")
        write_json(data_report, self.data_report)

    def read_config(self) -> dict[str, Any]:
        """The resolved config that `write_inputs` wrote.

        Raises:
            DataError: The folder is not a run.
        """
        if not self.config.exists():
            raise DataError(
                f"expected a run folder with config.yaml, but {self.root} has none; give the folder of a run"
            )
        return dict(yaml.safe_load(self.config.read_text()))

    def read_data_report(self) -> dict[str, Any]:
        """The data report that `write_inputs` wrote.

        Raises:
            DataError: There is none.
        """
        return dict(json.loads(self._read_text(self.data_report)))

    def read_environment(self) -> list[str]:
        """The lines of `environment` when the run started.

        Raises:
            DataError: There are none.
        """
        return self._read_text(self.environment).splitlines()

    def _read_text(self, path: Path) -> str:
        if not path.exists():
            raise DataError(f"expected {path.name} in {self.root}, but there is none; give the folder of a whole run")
        return path.read_text()

    def write_best(self, monitor: str, score: float, checkpoint: Path) -> None:
        """Start metrics.json with the chosen checkpoint."""
        best = {
            "monitor": monitor,
            "score": score,
            "checkpoint": checkpoint.resolve().relative_to(self.root.resolve()).as_posix(),
        }
        write_json({"best": best}, self.metrics)

    def best_checkpoint(self) -> Path:
        """The checkpoint that `write_best` recorded.

        Raises:
            DataError: Training has not finished.
        """
        if not self.metrics.exists():
            raise DataError(
                f"expected metrics.json in {self.root}, but there is none: the run has not finished; resume it"
            )
        return self.root / json.loads(self.metrics.read_text())["best"]["checkpoint"]

    def write_evaluation(
        self, predictions: pd.DataFrame, class_names: list[str], part: str, target: str = ""
    ) -> dict[str, float]:
        """Predictions and metrics of one part; per study as well where a study has several images of one label.

        Args:
            predictions: The predictions table.
            class_names: The K names in order.
            part: ``train``, ``val`` or ``test``.
            target: Which target of a multi-label dataset the table is about.

        Returns:
            ``<part>/<metric>`` per image, and ``<part>_study/<metric>`` where that differs; with a target
            ``<part>_<target>`` instead of ``<part>``, its name as in file names.
        """
        name = f"{part}_{file_name(target)}" if target else part
        metrics = self._write_table(predictions, class_names, name)
        if has_studies(predictions):
            metrics |= self._write_table(aggregate_by_study(predictions), class_names, f"{name}_study")
        return metrics

    def _write_table(self, predictions: pd.DataFrame, class_names: list[str], name: str) -> dict[str, float]:
        write_predictions(predictions, class_names, self.root / f"predictions_{name}.csv")
        target, probs = target_and_probs(predictions)
        return {f"{name}/{key}": value for key, value in classification_metrics(target, probs, class_names).items()}

    def write_baseline(self, predictions: pd.DataFrame, class_names: list[str], part: str, name: str) -> None:
        """Predictions of something that needs no net."""
        folder = self.root / BASELINES
        folder.mkdir(exist_ok=True)
        write_predictions(predictions, class_names, folder / f"{part}_{name}.csv")

    def write_scaling(self, scaling: Scaling | None) -> None:
        """Note in metrics.json the scaling fitted on validation, or that there is none."""
        write_json(json.loads(self.metrics.read_text()) | scaling_to_json(scaling), self.metrics)

    def read_scaling(self) -> Scaling | None:
        """The scaling of `write_scaling`; None where none was fitted."""
        found = json.loads(self.metrics.read_text())
        return None if found.get("temperature") is None else Scaling.from_dict(found)

    def read_metrics(self) -> dict[str, float | None]:
        """The metrics of every part evaluated so far; None where one is not defined."""
        return dict(json.loads(self.metrics.read_text())["metrics"])

    def write_metrics(self, metrics: dict[str, float]) -> None:
        """Add metrics to metrics.json."""
        written = json.loads(self.metrics.read_text())
        written["metrics"] = written.get("metrics", {}) | metrics
        write_json(written, self.metrics)


def file_name(target: str) -> str:
    """The name of a target with an underscore for whatever does not belong in the name of a file."""
    return re.sub(r"[^\w.-]+", "_", target).strip("_")


def mean_headlines(metrics: dict[str, float], part: str) -> dict[str, float]:
    """``<part>/<headline>`` as the mean over the targets of a multi-label dataset; nothing where `part` has its own."""
    if f"{part}/auroc" in metrics:
        return {}
    of_targets = [name for name in metrics if name.startswith(f"{part}_") and "_study/" not in name]
    return {
        f"{part}/{headline}": float(np.mean([metrics[name] for name in of_targets if name.endswith(f"/{headline}")]))
        for headline in HEADLINES
    }


def environment() -> list[str]:
    """Python, platform, and name==version of every installed package."""
    installed = sorted({f"{package.metadata['Name']}=={package.version}" for package in distributions()}, key=str.lower)
    return [f"python=={platform.python_version()}", f"# {platform.platform()}", *installed]


def nan_to_none(values: Any) -> Any:
    """The same nested values with None for each NaN."""
    if isinstance(values, dict):
        return {key: nan_to_none(value) for key, value in values.items()}
    return None if isinstance(values, float) and math.isnan(values) else values


def write_json(values: Any, path: Path) -> None:
    """Write JSON, NaN as null; the file appears whole or not at all."""
    write_whole(json.dumps(nan_to_none(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_whole(text: str, path: Path) -> None:
    """Write a file that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
