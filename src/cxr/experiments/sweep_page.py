"""The page of a sweep: one HTML file with its standing, its best trial, plots and all trials, plotly.js inside.

Knows nothing of Hydra or training; draws an Optuna study with the plots of `optuna.visualization`.
"""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from cxr.experiments.goals import Goals, finished
from cxr.experiments.sweep_records import BestTrial, find_best, make_trials_table, replace_file
from cxr.pages import render

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial
    from plotly.graph_objects import Figure

PAGE_FILE = "sweep.html"
BLUE, ORANGE, GREY = "#1f6feb", "#e8710a", "#52606d"
_TEMPLATE = Path(__file__).with_suffix(".html")


def write_page(study: "Study", folder: Path, goals: Goals, n_trials: int) -> None:
    """Write ``sweep.html``: one self-contained document, replaced in one step.

    Args:
        study: The study.
        folder: Sweep folder.
        goals: What is asked of a trial.
        n_trials: Total that the sweep goes for.

    Raises:
        DataError: The folder cannot be written.
    """
    from plotly.offline import get_plotlyjs

    best, trials = find_best(study, goals), make_trials_table(study, goals)
    plots = PLOTS if len(goals.metrics) == 1 else (FRONT, *PLOTS)
    blocks = [
        f'<h1>{escape(study.study_name)}</h1>\n<p class="lead">{_aim(goals)}</p>',
        _cards(trials, best, goals, n_trials),
        "" if best is None else _best_section(best),
        *(_plot_section(plot, study, goals) for plot in plots),
        _trials_section(trials, best),
    ]
    body, plotly = Markup("\n".join(blocks)), Markup(get_plotlyjs())
    replace_file(folder / PAGE_FILE, render(_TEMPLATE, title=study.study_name, body=body, plotly=plotly))


def _aim(goals: Goals) -> str:
    ends = {"max": "highest", "min": "lowest"}
    wanted = " and the ".join(
        f"{ends[mode]} {escape(name)}" for name, mode in zip(goals.metrics, goals.modes, strict=True)
    )
    if len(goals.metrics) == 1:
        return f"Search for the {wanted} of the validation part. Only the best trial is tested, after the last."
    limits = ", ".join(f"{escape(name)} up to {limit:g}" for name, limit in goals.limits.items())
    tested = f"The best trial is the best by {escape(goals.main)} with {limits}." if limits else "No trial is tested."
    return f"Search for the {wanted}. A trial is on the front if no other is better in every respect. {tested}"


def _cards(trials: pd.DataFrame, best: BestTrial | None, goals: Goals, n_trials: int) -> str:
    states = trials["state"].value_counts()
    ended = states.get("complete", 0) + states.get("pruned", 0)
    first = [] if "front" not in trials else [(str(trials["front"].sum()), "trials on the front")]
    cards = [
        *first,
        ("–" if best is None else f"{best.value:.4f}", f"best {goals.main}"),
        ("–" if best is None else str(best.number), "best trial"),
        (f"{ended} of {n_trials}", "trials finished"),
        (str(states.get("pruned", 0)), "of them stopped early"),
        (str(states.get("fail", 0)), "failed or interrupted"),
        (tell_duration(trials["seconds"].sum()), "spent in trials"),
    ]
    return '<div class="cards">' + "".join(_card(value, label) for value, label in cards) + "</div>"


def _card(value: str, label: str) -> str:
    return f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def tell_duration(seconds: float) -> str:
    """Seconds as hours and minutes, minutes and seconds, or seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _best_section(best: BestTrial) -> str:
    test = {key.removeprefix("test/"): value for key, value in best.headline_test().items()}
    return (
        f"<section><h2>Best trial: {best.number}</h2>{_table(pd.DataFrame([best.params]))}"
        f"<p>Checkpoint: <code>{escape(best.checkpoint)}</code></p>"
        + (f"<h2>Its test</h2>{_table(pd.DataFrame([test]))}" if test else "")
        + "</section>"
    )


def _main_value(trial: "FrozenTrial") -> float:
    return float(trial.values[0])


def _draw_front(study: "Study", goals: Goals) -> "Figure":
    from optuna.visualization import plot_pareto_front

    return plot_pareto_front(study, target_names=list(goals.metrics))


def _draw_history(study: "Study", goals: Goals) -> "Figure":
    from optuna.visualization import plot_optimization_history

    figure = plot_optimization_history(study, target=_target(goals), target_name=goals.main)
    figure.update_traces(selector={"mode": "markers"}, marker={"color": BLUE, "size": 8})
    figure.update_traces(selector={"mode": "lines"}, line={"color": ORANGE, "shape": "hv"})
    figure.update_layout(legend={"orientation": "h", "y": 1.12, "x": 0})
    figure.update_xaxes(dtick=max(1, len(study.trials) // 10))
    return figure


def _draw_parallel(study: "Study", goals: Goals) -> "Figure":
    from optuna.visualization import plot_parallel_coordinate

    figure = plot_parallel_coordinate(study, target=_target(goals), target_name=goals.main)
    figure.update_layout(plot_bgcolor="#e4e7eb")  # the lines of the weakest trials are white
    return figure


def _draw_importances(study: "Study", goals: Goals) -> "Figure":
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization import plot_param_importances

    evaluator = FanovaImportanceEvaluator(seed=0)
    figure = plot_param_importances(study, evaluator, target=_target(goals), target_name=goals.main)
    figure.update_traces(marker_color=BLUE)
    return figure


def _target(goals: Goals) -> Callable[["FrozenTrial"], float] | None:
    return None if len(goals.metrics) == 1 else _main_value


class Plot(NamedTuple):
    """One plot of the page, and how many finished trials it takes."""

    heading: str
    draw: Callable[["Study", Goals], "Figure"]
    needed: int


FRONT = Plot("What is gained and what it costs", _draw_front, 1)
PLOTS = (
    Plot("Values over the trials", _draw_history, 1),
    Plot("Parameters of each trial", _draw_parallel, 1),
    Plot("Importance of the parameters (fANOVA)", _draw_importances, 8),
)


def _plot_section(plot: Plot, study: "Study", goals: Goals) -> str:
    return f"<section><h2>{plot.heading}</h2>{_plot_or_note(plot, study, goals)}</section>"


def _plot_or_note(plot: Plot, study: "Study", goals: Goals) -> str:
    done = len(finished(study))
    if done < plot.needed:
        return f'<p class="note">Drawn once {plot.needed} trials have finished; so far {done}.</p>'
    try:
        figure = plot.draw(study, goals)
    except (ValueError, RuntimeError) as error:
        return f'<p class="note">Cannot be drawn yet: {escape(str(error))}</p>'
    figure.update_layout(title=None, template="plotly_white", height=360, margin={"l": 70, "r": 30, "t": 24, "b": 60})
    figure.update_layout(font={"color": GREY, "size": 12})
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False}))


def _trials_section(trials: pd.DataFrame, best: BestTrial | None) -> str:
    table = _table(trials.drop(columns="checkpoint"), None if best is None else best.number)
    return f"<section><h2>Trials</h2>{table}</section>"


def _table(table: pd.DataFrame, best: int | None = None) -> str:
    """An HTML table; the row of trial `best` is marked, and a text in the column ``error`` gets a row of its own."""
    columns = [str(column) for column in table.columns if column != "error"]
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    rows = "".join(_row(row, columns, best) for row in table.to_dict("records"))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(row: dict[Any, Any], columns: list[str], best: int | None) -> str:
    mark = "best" if best is not None and row["number"] == best else escape(str(row.get("state", "")))
    cells = "".join(f"<td>{escape(_format(row[column]))}</td>" for column in columns)
    error = _format(row.get("error"))
    told = (
        f'<tr class="fail error"><td></td><td colspan="{len(columns) - 1}">{escape(error)}</td></tr>' if error else ""
    )
    return f'<tr class="{mark}">{cells}</tr>{told}'


def _format(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
