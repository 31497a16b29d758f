"""A comparison of models as files: Markdown, CSV and one page. Knows nothing of how models are compared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.data.owner_lists import guard_formulas
from cxr.errors import DataError
from cxr.evaluation.compare import Comparison, Result
from cxr.evaluation.figure_comparison import plot_comparison
from cxr.evaluation.figures import write_figure
from cxr.evaluation.report.documents import RESEARCH_ONLY
from cxr.pages import embed_picture, render

FIGURE = "comparison.png"
_TEMPLATE = Path(__file__).with_name("comparison.html")


@dataclass(frozen=True)
class Compared:
    """What is shown.

    Attributes:
        comparison: Of `compare`.
        costs: One row per run: run, parameters, megabytes, gflops, latency_ms; may be empty.
        remarks: What a reader must know of how the predictions came about.
    """

    comparison: Comparison
    costs: pd.DataFrame
    remarks: Sequence[str] = ()


def write_comparison(compared: Compared, folder: Path) -> None:
    """Write ``comparison.md``, ``comparison.csv``, ``comparison.png`` and ``comparison.html``.

    Raises:
        DataError: The folder cannot be written.
    """
    comparison = compared.comparison
    try:
        folder.mkdir(parents=True, exist_ok=True)
        guard_formulas(comparison.to_frame()).to_csv(folder / "comparison.csv", index=False)
        (folder / "comparison.md").write_text(to_markdown(compared), encoding="utf-8")
        write_figure(plot_comparison(comparison), folder / FIGURE)
        page = render(
            _TEMPLATE, title="Comparison", comparison=comparison, rows=list_rows(comparison),
            costs=list_costs(compared), research_only=RESEARCH_ONLY, notes=[*compared.remarks, *list_notes(comparison)],
            figure=embed_picture(folder / FIGURE),
        )  # fmt: skip
        (folder / "comparison.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"expected to write to {folder}, but got: {error}; choose another --out") from error


def list_rows(comparison: Comparison) -> list[dict[str, str]]:
    """The table in words: one row for each metric and recipe."""
    metrics = list(dict.fromkeys(result.metric for result in comparison.results))
    by_metric = [result for metric in metrics for result in comparison.results if result.metric == metric]
    return [_tell_row(result) for result in by_metric]


def list_costs(compared: Compared) -> list[dict[str, str]]:
    """Sizes and times in words."""
    return [
        {
            "run": str(row.run),
            "parameters": f"{row.parameters:,}",
            "size": f"{row.megabytes:.1f} MB",
            "operations": f"{row.gflops:.2f} GFLOP",
            "latency": f"{row.latency_ms:.1f} ms",
        }
        for row in compared.costs.itertuples()
    ]


def list_notes(comparison: Comparison) -> list[str]:
    """Why a second test was not made."""
    tests = [result.test for result in comparison.results if result.test is not None and result.test.note]
    return list(dict.fromkeys(f"{test.name}: {test.note}" if test.name else test.note for test in tests))


def to_markdown(compared: Compared) -> str:
    """The tables as Markdown."""
    comparison = compared.comparison
    size = f"{comparison.rows:,} test images of {comparison.patients:,} patients; differences to {comparison.reference}"
    lines = ["# Comparison", "", f"**{RESEARCH_ONLY}** {size}.", "", *_to_table(list_rows(comparison))]
    costs = list_costs(compared)
    remarks = [line for remark in compared.remarks for line in (remark, "")]
    return "\n".join([*lines, "", *remarks, *(_to_table(costs) if costs else []), ""])


def _to_table(rows: list[dict[str, str]]) -> Iterator[str]:
    yield "| " + " | ".join(rows[0]) + " |"
    yield "|" + "---|" * len(rows[0])
    for row in rows:
        yield "| " + " | ".join(text.replace("|", "\\|") for text in row.values()) + " |"


def _tell_row(result: Result) -> dict[str, str]:
    difference, test = result.difference, result.test
    spread = f", SD {result.sd:.3f} of {result.runs} seeds" if result.runs > 1 else ""
    tested = test is not None and not np.isnan(test.p_value)
    return {
        "metric": result.metric,
        "model": result.recipe,
        "value": _tell(result.value.value, result.value.low, result.value.high) + spread,
        "difference": "reference" if difference is None else _tell(difference.value, difference.low, difference.high),
        "p": "" if difference is None else _tell_p(result.p_holm),
        "smallest": "" if difference is None else _tell(difference.smallest),
        "second test": f"{test.name} {_tell_p(test.p_holm)}" if test is not None and tested else "",
    }


def _tell(value: float, low: float = np.nan, high: float = np.nan) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _tell_p(value: float) -> str:
    if np.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
