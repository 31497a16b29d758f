"""The figures of a report, one after the other. Knows nothing of pages or files."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cxr.evaluation.drawing import drawable_names
from cxr.evaluation.figure_set import classification_figures
from cxr.evaluation.figures import plot_learning_curves
from cxr.evaluation.figures_worth import (
    plot_decision_curves,
    plot_reliability,
    plot_risk_coverage,
    plot_score_histograms,
)
from cxr.evaluation.predictions import target_and_probs
from cxr.evaluation.report.collect import name_probs
from cxr.evaluation.report.decisions import choose_abstention, choose_points
from cxr.evaluation.report.material import Material, Question
from cxr.scaling import Scaling

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Named = tuple[str, "Figure"]
LONGEST_NAME = 40


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
            figures = classification_figures(target, probs, shorten_names(question.class_names))
            yield from ((f"{part['stem']}_{name}", figure) for name, figure in figures.items())
        yield from _draw_worth(question, numbers, rule)
    if report["best"] is not None and material.history is not None:
        monitor = material.config["monitor"]
        yield "learning_curves", plot_learning_curves(material.history, monitor["metric"], monitor["mode"])


def shorten_names(class_names: list[str]) -> list[str]:
    """Names that can be drawn and leave room; one that is cut ends in its number, so that all stay different."""
    return [
        name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 5].rstrip()} … {number}"
        for number, name in enumerate(drawable_names(class_names))
    ]


def _draw_worth(question: Question, numbers: dict[str, Any], rule: str) -> Iterator[Named]:
    """Calibration, scores, net benefit and abstention on the last part."""
    target, probs = target_and_probs(list(question.parts.values())[-1])
    stem = numbers["parts"][-1]["stem"]
    scaling = None if numbers["scaling"] is None else Scaling.from_dict(numbers["scaling"])
    named = name_probs(question, numbers["parts"][-1]["name"], scaling)
    names = shorten_names(question.class_names)
    yield f"{stem}_reliability", plot_reliability(target, named, names)
    yield f"{stem}_risk_coverage", plot_risk_coverage(target, probs, choose_abstention(question))
    yield f"{stem}_decision_curve", plot_decision_curves(target, probs, names)
    if len(question.class_names) == 2:
        point = choose_points(question, rule).get(question.class_names[1])
        yield f"{stem}_scores", plot_score_histograms(target == 1, probs[:, 1], (names[0], names[1]), point)
