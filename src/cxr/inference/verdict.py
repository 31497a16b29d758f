"""What is said of one image: the answer, what the operating point makes of it, whether to answer at all, and warnings.

Knows nothing of nets, of files, or of how a verdict is shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cxr.data.subject_words import ELSEWHERE, NO_RADIOGRAPH
from cxr.inference.intake import Told
from cxr.inference.predictor import Predictor, Probs, Scores

UNLIKE_TRAINING, INVERTED, NOT_FRONTAL, NOT_CALIBRATED = "unlike_training", "inverted", "not_frontal", "not_calibrated"
NOT_A_RADIOGRAPH, NOT_A_CHEST, ONE_OF_SEVERAL = "not_a_radiograph", "not_a_chest", "one_of_several"
WARNINGS = {
    NOT_A_RADIOGRAPH: "The file says that this is not a plain X-ray but, for example, a CT or ultrasound image.",
    NOT_A_CHEST: "The file says that this shows another part of the body; the model learned from chests.",
    ONE_OF_SEVERAL: "The file has several images; this answers for the first one alone.",
    UNLIKE_TRAINING: "The image is unlike those the model learned from; it may not be a chest radiograph.",
    INVERTED: "The image looks inverted: bones should be bright.",
    NOT_FRONTAL: "The file says that this is not a frontal view; the model learned from frontal ones.",
    NOT_CALIBRATED: "The probabilities of this model were never calibrated; read them as an order, not as frequencies.",
}


@dataclass(frozen=True)
class Verdict:
    """What is said of one image.

    Attributes:
        label: See `Predictor.name`.
        probs: Class name -> probability.
        decisions: Class or target name -> whether its probability reaches the operating point; empty where none was
            chosen.
        abstained: Whether the largest probability is below the confidence from which on the model answers; None where
            none was chosen.
        warnings: Keys of `WARNINGS`.
    """

    label: str
    probs: Mapping[str, float]
    decisions: Mapping[str, bool]
    abstained: bool | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "warnings": list(self.warnings)}


def judge(predictor: Predictor, scores: Scores, told: Sequence[Told]) -> list[Verdict]:
    """The verdict on each of N images.

    Args:
        predictor: What scored them.
        scores: Of the N images.
        told: What each of their files says of itself.
    """
    return [
        Verdict(
            label=predictor.name(probs),
            probs={name: float(prob) for name, prob in zip(predictor.class_names, probs, strict=True)},
            decisions=_decide(predictor, probs),
            abstained=_abstains(predictor, probs),
            warnings=tuple(_warn(predictor, unlike > 1, bool(inverted), file)),
        )
        for probs, unlike, inverted, file in zip(scores.probs, scores.unlike, scores.inverted, told, strict=True)
    ]


def list_points(predictor: Predictor) -> dict[str, float]:
    """Class or target name -> threshold of its operating point."""
    points = predictor.operating_point
    if points is None:
        return {}
    if "threshold" in points:
        return {str(points["positive_class"]): float(points["threshold"])}
    return {name: float(point["threshold"]) for name, point in points.items()}


def _decide(predictor: Predictor, probs: Probs) -> dict[str, bool]:
    places = {name: place for place, name in enumerate(predictor.class_names)}
    return {name: bool(probs[places[name]] >= threshold) for name, threshold in list_points(predictor).items()}


def _abstains(predictor: Predictor, probs: Probs) -> bool | None:
    return None if predictor.abstention is None else bool(probs.max() < predictor.abstention["threshold"])


def _warn(predictor: Predictor, unlike: bool, inverted: bool, file: Told) -> Iterator[str]:
    if file.subject == NO_RADIOGRAPH:
        yield NOT_A_RADIOGRAPH
    if file.subject == ELSEWHERE:
        yield NOT_A_CHEST
    if file.frames > 1:
        yield ONE_OF_SEVERAL
    if unlike:
        yield UNLIKE_TRAINING
    if inverted:
        yield INVERTED
    if file.view == "other":
        yield NOT_FRONTAL
    if not predictor.calibrated:
        yield NOT_CALIBRATED
