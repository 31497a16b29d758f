"""The figures of a report, one after the other. Knows nothing of pages or files."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cxr.evaluation.calibration import apply_temperature
from cxr.evaluation.figure_set import classification_figures
from cxr.evaluation.figures import plot_learning_curves
from cxr.evaluation.figures_worth import (
    plot_decision_curves,
    plot_reliability,
    plot_risk_coverage,
    plot_score_histograms,
)
from cxr.evaluation.report.collect import choose_abstention, choose_points, target_and_probs
from cxr.evaluation.report.material import Material, Question

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Named = tuple[str, "Figure"]


def draw_figures(material: Material, report: dict[str, Any], rule: str) -> Iterator[Named]:
    """Name -> figure: of validation and test what describes predictions, of the last part what they are worth.

    Args:
        material: What the report is of.
        report: Of `collect`.
        rule: Chooses the operating point to mark.
    """
    for question, numbers in zip(material.questions, report["questions"], strict=True):
        for part in (part for part in numbers["parts"] if part["name"] != "train"):
            target, probs = target_and_probs(question.parts[part["name"]])
            figures = classification_figures(target, probs, question.class_names)
            yield from ((f"{part['stem']}_{name}", figure) for name, figure in figures.items())
        yield from _draw_worth(question, numbers, rule)
    if report["best"] is not None and material.history is not None:
        monitor = material.config["monitor"]
        yield "learning_curves", plot_learning_curves(material.history, monitor["metric"], monitor["mode"])


def _draw_worth(question: Question, numbers: dict[str, Any], rule: str) -> Iterator[Named]:
    """Calibration, scores, net benefit and abstention on the last part."""
    target, probs = target_and_probs(list(question.parts.values())[-1])
    stem = numbers["parts"][-1]["stem"]
    yield f"{stem}_reliability", plot_reliability(target, _calibrated(question, numbers), question.class_names)
    yield f"{stem}_risk_coverage", plot_risk_coverage(target, probs, choose_abstention(question))
    yield f"{stem}_decision_curve", plot_decision_curves(target, probs, question.class_names)
    if len(question.class_names) == 2:
        others, name = question.class_names
        point = choose_points(question, rule).get(name)
        yield f"{stem}_scores", plot_score_histograms(target == 1, probs[:, 1], (others, name), point)


def _calibrated(question: Question, numbers: dict[str, Any]) -> dict[str, Any]:
    """Probabilities before and, where one was fitted, after the temperature."""
    _, logits = target_and_probs(list(question.parts.values())[-1], "logit")
    named = {"as the net gives them": apply_temperature(logits, 1.0)}
    temperature = numbers["temperature"]
    if temperature is not None:
        named[f"temperature {temperature:.3g}"] = apply_temperature(logits, temperature)
    return named
