import numpy as np
import pytest

from cxr.evaluation.compare import compare
from cxr.evaluation.figure_comparison import plot_comparison
from cxr.evaluation.figures import write_figure

from .statistics.made_up import NAMES, make_table

METRICS = ["auroc", "balanced_accuracy"]


@pytest.fixture(scope="module")
def comparison():
    skills = {"good": 1.5, "poor": 0.2, "$_" * 30: 1.5}
    tables = {
        name: (make_table(seed=seed, skill=skill), NAMES[:2]) for seed, (name, skill) in enumerate(skills.items())
    }
    return compare(tables, METRICS)


def drawn(ax):
    """Row -> (ends of the line, dot)."""
    lines = [line.get_xydata() for line in ax.lines if line.get_linestyle() != "--" and len(set(line.get_ydata())) == 1]
    rows = sorted({line[0, 1] for line in lines})
    return {
        row: (
            next(line[:, 0] for line in lines if line[0, 1] == row and len(line) == 2),
            next(line[0, 0] for line in lines if line[0, 1] == row and len(line) == 1),
        )
        for row in rows
    }


@pytest.mark.filterwarnings("error")
def test_every_value_and_difference_is_drawn_with_its_interval(comparison, tmp_path):
    figure = plot_comparison(comparison)
    values, differences = (drawn(ax) for ax in figure.axes)
    ordered = sorted(comparison.results, key=lambda result: METRICS.index(result.metric))
    assert list(values) == [1, 2, 3, 5, 6, 7]
    for result, (ends, dot) in zip(ordered, values.values(), strict=True):
        assert (*ends, dot) == pytest.approx((result.value.low, result.value.high, result.value.value))
    gaps = [result.difference for result in ordered if result.difference is not None]
    assert list(differences) == [2, 3, 6, 7]
    for gap, (ends, dot) in zip(gaps, differences.values(), strict=True):
        assert (*ends, dot) == pytest.approx((gap.low, gap.high, gap.value))
    write_figure(figure, tmp_path / "comparison.png")


def test_rows_are_named_under_their_metrics(comparison):
    ax = plot_comparison(comparison).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == ["good", "poor"]
    assert [(text.get_text(), text.xy[1]) for text in ax.texts] == [("AUROC", 0), ("Balanced accuracy", 4)]


def test_what_has_no_interval_is_a_dot_alone():
    table = make_table(skill=50.0)
    found = compare({"perfect": (table, NAMES[:2]), "as well": (table, NAMES[:2])}, ["mcc"])
    values, differences = (drawn(ax) for ax in plot_comparison(found).axes)
    assert [dot for _, dot in values.values()] == [1, 1]
    assert all(np.isnan(ends).all() for ends, _ in values.values())
    assert [dot for _, dot in differences.values()] == [0]
