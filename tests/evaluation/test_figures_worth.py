import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import softmax

from cxr.evaluation.calibration import expected_calibration_error, reliability_curve
from cxr.evaluation.decision_curve import decision_curve
from cxr.evaluation.figures import write_figure
from cxr.evaluation.figures_worth import (
    plot_decision_curves,
    plot_reliability,
    plot_risk_coverage,
    plot_score_histograms,
)
from cxr.evaluation.operating_point import AtLeast, choose_operating_point
from cxr.evaluation.selective import choose_by_risk, risk_coverage_curve

TWO = ["Negative for Pneumonia", "Typical Appearance"]
FOUR = [*TWO, "Indeterminate Appearance", "Atypical Appearance"]
pytestmark = pytest.mark.filterwarnings("error")


def make_case(num_classes=2, n=300):
    rng = np.random.default_rng(0)
    target = rng.integers(num_classes, size=n)
    return target, softmax(rng.normal(size=(n, num_classes)) + 2 * np.eye(num_classes)[target], axis=1)


def choose(target, probs):
    return choose_operating_point(target == 1, probs[:, 1], AtLeast("sensitivity", 0.9), positive_class=TWO[1])


def legend_of(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def all_figures(target, probs, names):
    point = choose(target, probs)
    flat = 0.5 * probs + 0.5 / len(names)
    return {
        "reliability": plot_reliability(target, {"before": probs, "after": flat}, names),
        "decision": plot_decision_curves(target, probs, names),
        "risk": plot_risk_coverage(target, probs, choose_by_risk(target, probs, 0.1)),
        "scores": plot_score_histograms(target == 1, probs[:, 1], ("others", names[1]), point),
    }


@pytest.mark.parametrize("names", [TWO, FOUR, ["$a", "_b " * 30]], ids=["two", "four", "odd"])
def test_every_figure_can_be_written(names, tmp_path):
    for name, figure in all_figures(*make_case(len(names)), names).items():
        write_figure(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("names", [TWO, FOUR], ids=["two", "four"])
def test_reliability_shows_the_bins_and_names_their_error(names):
    target, probs = make_case(len(names))
    figure = plot_reliability(target, {"as trained": probs}, names)
    positive, prob = (
        (target == 1, probs[:, 1]) if len(names) == 2 else (probs.argmax(axis=1) == target, probs.max(axis=1))
    )
    curve = reliability_curve(positive, prob)
    drawn = figure.axes[0].containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(drawn, curve[["mean_prob", "observed"]])
    segments = figure.axes[0].containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([[low, high] for (_, low), (_, high) in segments], curve[["low", "high"]])
    error = expected_calibration_error(target, probs)
    assert legend_of(figure) == ["0.000   perfect", f"{error:.3f}   as trained"]


def test_the_histogram_lies_below_the_diagram_on_the_same_scale():
    figure = plot_reliability(*make_case()[:1], {"as trained": make_case()[1]}, TWO)
    figure.draw_without_rendering()
    above, below = (ax.get_position() for ax in figure.axes)
    assert (above.x0, above.x1) == pytest.approx((below.x0, below.x1))
    assert below.y1 < above.y0


def test_two_reliability_curves_differ_in_colour_and_mark():
    target, probs = make_case()
    figure = plot_reliability(target, {"before": probs, "after": probs}, TWO)
    one, other = (container.lines[0] for container in figure.axes[0].containers)
    assert one.get_color() != other.get_color()
    assert one.get_marker() != other.get_marker()


def test_decision_curve_shows_model_all_and_none():
    target, probs = make_case()
    figure = plot_decision_curves(target, probs, TWO)
    curve = decision_curve(target == 1, probs[:, 1])
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    for label, name in (("by the model", "model"), ("treat all", "treat_all"), ("treat none", "treat_none")):
        np.testing.assert_allclose(lines[label], curve[name])
    low, high = figure.axes[0].get_ylim()
    assert low < 0 < curve["model"].max() < high


def test_of_several_classes_each_has_its_decision_curve():
    target, probs = make_case(3)
    figure = plot_decision_curves(target, probs, FOUR[:3])
    shown = [ax for ax in figure.axes if ax.lines]
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in shown]
    assert titles == FOUR[:3]
    for k, ax in enumerate(shown):
        line = {line.get_label(): line.get_ydata() for line in ax.lines}["by the model"]
        np.testing.assert_allclose(line, decision_curve(target == k, probs[:, k])["model"])


def test_risk_and_coverage_shows_the_curve_and_the_point():
    target, probs = make_case()
    point = choose_by_risk(target, probs, 0.05)
    figure = plot_risk_coverage(target, probs, point)
    _, line, mark = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), risk_coverage_curve(target, probs)[["coverage", "risk"]])
    assert mark.get_xydata()[0] == pytest.approx([point.answers.coverage, point.answers.risk])
    errors = int((probs.argmax(axis=1) != target).sum())
    share = f"{100 * point.answers.risk:.1f} % ({point.answers.errors} / {point.answers.kept})"
    assert legend_of(figure)[0] == f"all answered: {errors / 3:.1f} % ({errors} / 300)"
    assert legend_of(figure)[2] == f"risk ≤ 0.05 on val:\n{share}"


def test_a_point_that_answers_none_of_these_rows_is_not_drawn():
    target, probs = make_case()
    sure = np.array([[0.0, 1.0]])
    figure = plot_risk_coverage(target, probs, choose_by_risk([1], sure, 0.0))
    assert len(figure.axes[0].lines) == 2


def test_score_histograms_count_and_mark_what_is_called_positive():
    target, probs = make_case()
    point = choose(target, probs)
    figure = plot_score_histograms(target == 1, probs[:, 1], ("others", TWO[1]), point)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == [
        f"{TWO[1]}: {point.counts.tp} / {(target == 1).sum()} called positive",
        f"others: {point.counts.fp} / {(target == 0).sum()} called positive",
    ]
    for ax in figure.axes:
        assert set(ax.lines[0].get_xdata()) == {point.threshold}
    text = figure.get_supxlabel()
    assert text == f"Dashed: called positive from {point.threshold:.3f} on, chosen on val (sensitivity ≥ 0.9)"


def test_score_histograms_without_a_point_count_alone():
    figure = plot_score_histograms([1, 0, 0], [0.9, 0.2, 0.3], ("no", "yes"))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["yes: 1", "no: 2"]
    assert figure.get_supxlabel() == ""


def test_histograms_of_a_class_without_a_case_are_empty(tmp_path):
    figure = plot_score_histograms([0, 0], [0.2, 0.3], ("no", "yes"))
    write_figure(figure, tmp_path / "scores.png")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["yes: 0", "no: 2"]
