"""One net per class, each against all other classes (one-vs-rest), put together. Knows nothing of how a run trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from cxr.data.samples import target_names
from cxr.ensemble.fit import combine_runs
from cxr.ensemble.folder import write_folder, write_page
from cxr.ensemble.members import Floats, Member, Rows, read_run
from cxr.errors import ConfigError
from cxr.evaluation.compare import compare
from cxr.evaluation.predictions import read_predictions
from cxr.evaluation.report.comparison import Compared, write_comparison
from cxr.experiments.plan import PlannedRun, word
from cxr.experiments.spread import Summary, summarize
from cxr.inference.combine import ONE_VS_REST, Rule
from cxr.training.run_folder import RunFolder
from cxr.training.sources import read_cohort

METRICS = ("auroc", "average_precision", "balanced_accuracy", "accuracy", "f1_macro")
NOTES = (
    "The summary shows both rules on the same images; runs.csv has each net, one class against the rest.",
    "Both rules name the same class, always: the one whose net is most certain. Where no net or several say yes, the "
    "probabilities differ, and with them AUROC and calibration. Intervals and differences: comparison.html.",
)


@dataclass(frozen=True)
class OneVsRest:
    """Every class has a net that tells it from all others, on the split that the config's own seed makes."""

    def runs(self, config: DictConfig) -> list[PlannedRun]:
        """One run per class, see `Plan`.

        Raises:
            ConfigError: There are two classes, which one net tells apart, or several targets per image.
        """
        cohort = read_cohort(config)
        names = cohort.class_names
        if target_names(cohort.samples) or len(names) < 3:
            raise ConfigError(
                f"plan=ovr needs a dataset of three or more classes, one per image, but got {', '.join(names)}; "
                "leave out plan"
            )
        return [
            PlannedRun(f"class_{index}", cohort.samples, names, (word("data.one_class", name),))
            for index, name in enumerate(names)
        ]

    def reduce(self, runs: Sequence[RunFolder], folder: Path) -> Summary:
        """Both rules as folders like a run's, their comparison, and how often one net, none or several say yes."""
        names = [str(run.read_config()["data"]["one_class"]) for run in runs]
        members = [read_run(run.root, name) for run, name in zip(runs, names, strict=True)]
        parts = {part: put_together(members, part) for part in ("val", "test")}
        rule = runs[0].read_config()["operating_point"]
        metrics = {}
        for name in ONE_VS_REST:
            ensemble = combine_runs(members, Rule(name), parts, name, rule, names)
            metrics[name] = write_folder(ensemble, folder / name)
            write_page(folder / name)
        tables = {name: read_predictions(folder / name / "predictions_test.csv") for name in ONE_VS_REST}
        write_comparison(Compared(compare(tables, METRICS), pd.DataFrame()), folder)
        values = summarize({run.root.name: run.read_metrics() for run in runs}, 0.0, ()).values
        return Summary(values, tabulate(metrics), (*NOTES, count_answers(parts["test"].probs)))


def put_together(members: Sequence[Member], part: str) -> Rows:
    """What the nets of all classes say of the rows of one part, and the class that each row has.

    Args:
        members: One for each class, in order, named by it.
        part: Of the split that they share.

    Returns:
        Rows whose target is one of the K classes, with (K, N, 2) probabilities of no and yes.
    """
    first = members[0].tables[part]
    columns = [member.class_names.index(member.name) for member in members]
    tables = [member.tables[part].set_index("sample_id").loc[first["sample_id"]] for member in members]
    pairs = list(zip(tables, columns, strict=True))
    truth = np.stack([(table["target"] == column).to_numpy() for table, column in pairs])
    yes = np.stack([table[f"prob_{column}"].to_numpy(np.float64) for table, column in pairs])
    return Rows(first.assign(target=truth.argmax(axis=0)), np.stack([1 - yes, yes], axis=2))


def tabulate(metrics: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """One row per test metric, one column per rule."""
    table = pd.DataFrame(metrics)
    return table[[str(name).startswith("test") for name in table.index]]


def count_answers(probs: Floats) -> str:
    """How often one net, none or several say yes, in a sentence.

    Args:
        probs: (K, N, 2) no and yes of each net.
    """
    yes = (probs[:, :, 1] >= 0.5).sum(axis=0)
    none, one, several = (yes == 0).sum(), (yes == 1).sum(), (yes > 1).sum()
    return f"Of {len(yes)} test images one net says yes to {one}, none to {none}, several to {several}."
