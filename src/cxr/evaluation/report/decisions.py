"""What validation decides for a question: operating points, from which confidence on it is answered, the scaling.

Knows nothing of reports, nor of what is measured at a point.
"""

from collections.abc import Sequence
from typing import Any

from cxr.errors import DataError
from cxr.evaluation.calibration import fit_scaling
from cxr.evaluation.operating_point import OperatingPoint, choose_operating_point, parse_rule
from cxr.evaluation.predictions import target_and_probs
from cxr.evaluation.report.material import Material, Question
from cxr.evaluation.selective import AbstentionPoint, choose_by_risk
from cxr.scaling import Scaling

RULES = ("sensitivity >= 0.9", "sensitivity >= 0.95", "specificity >= 0.9", "youden", "threshold 0.5")
WANTED_RISK = 0.05
VALIDATION = "val"


def rule_of(material: Material) -> str:
    """How the run chose its operating point; of tables the first of `RULES`."""
    return str(material.config.get("operating_point", RULES[0]))


def choose_points(question: Question, rule: str) -> dict[str, OperatingPoint]:
    """The operating points of a question, chosen on its validation part.

    Args:
        question: Of two classes or more.
        rule: See `parse_rule`.

    Returns:
        Class -> point: with two classes of class 1 alone, with more of each class against the rest. A class is left out
        where validation has none or nothing but its rows; without validation all are.
    """
    table = question.parts.get(VALIDATION)
    if table is None:
        return {}
    target, probs = target_and_probs(table)
    names = question.class_names
    return {
        names[k]: choose_operating_point(target == k, probs[:, k], parse_rule(rule), positive_class=names[k])
        for k in positive_classes(names)
        if (target == k).any() and (target != k).any()
    }


def describe_points(questions: Sequence[Question], rule: str) -> dict[str, Any] | None:
    """The operating points that go into a bundle, as plain values.

    Args:
        questions: One, or one for each of several targets.
        rule: See `parse_rule`.

    Returns:
        With two classes the point itself; of more classes, or several targets, name -> point; None where there is none.
    """
    chosen = (choose_points(question, rule) for question in questions)
    points = {name: point.to_dict() for found in chosen for name, point in found.items()}
    one = not questions[0].name and len(questions[0].class_names) == 2
    return next(iter(points.values()), None) if one or not points else points


def describe_abstention(questions: Sequence[Question]) -> dict[str, Any] | None:
    """The confidence of `choose_abstention` that goes into a bundle, as plain values; None where there is none.

    Args:
        questions: One; of several targets no one answer is given, so there is nothing to abstain from.
    """
    point = None if questions[0].name else choose_abstention(questions[0])
    return None if point is None else point.to_dict()


def positive_classes(class_names: Sequence[str]) -> list[int]:
    """The classes that are held against the rest: of two the second, of more each."""
    return [1] if len(class_names) == 2 else list(range(len(class_names)))


def choose_abstention(question: Question) -> AbstentionPoint | None:
    """The confidence from which on a question is answered; None without validation or where no coverage will do."""
    table = question.parts.get(VALIDATION)
    if table is None:
        return None
    try:
        return choose_by_risk(*target_and_probs(table), WANTED_RISK)
    except DataError:
        return None


def fitted_scaling(material: Material, question: Question) -> Scaling | None:
    """The scaling of the run, one for all its targets, else one fitted on validation; None where there is none."""
    if "temperature" in material.metrics:
        return None if material.metrics["temperature"] is None else Scaling.from_dict(material.metrics)
    table = question.parts.get(VALIDATION)
    return None if table is None else fit_scaling(*target_and_probs(table, "logit"))
