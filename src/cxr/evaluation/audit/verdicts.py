"""From measured separations to verdicts and plain sentences. Knows nothing of how they were measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cxr.evaluation.audit.separation import Separation
from cxr.evaluation.statistics.intervals import CONFIDENCE

ALPHA = 0.01
"""Bound on the chance that an audit of data without any shortcut calls one."""
FLOOR = 0.55
"""A shortcut's AUROC is above this with its whole interval."""

NONE, WEAK, SHORTCUT = "none", "weak", "shortcut"
REFERENCE, ENCODED, UNTESTABLE = "reference", "encoded", "untestable"

_REFERENCES = ("thumbnail", "net")
_USES = {
    "source": "the column source",
    "metadata": "the columns {parts}",
    "border": "the order of grey in the outer 3/32 of the image on each side",
    "corners": "the order of grey in the four corners, each 6/32 of height and width",
    "thumbnail": "the image shrunk to 8 x 8",
    "net": "whole images, through the net",
    "lungs covered": "the outer 3/32 of the image on each side, through the net; the middle is the average image",
    "probe": "the net's embeddings; {column} is told apart among images of one class",
}
_SUBJECTS = {
    "source": "the source alone",
    "metadata": "metadata alone",
    "border": "the outer frame of the image alone",
    "corners": "the four corners of the image alone",
    "thumbnail": "an 8 x 8 thumbnail",
    "net": "the net on whole images",
    "lungs covered": "the net with the lungs covered",
}
_PLURAL = ("metadata", "corners")
_CROPPED = ("border", "corners", "lungs covered")
_SCOPES = {"all": "in the whole set", "test": "on the test split"}


@dataclass(frozen=True)
class AuditRow:
    """One line of the audit.

    Attributes:
        name: source, metadata, border, corners, thumbnail, net, lungs covered, or probe.
        scope: The rows it was measured on: all, or a part of the split.
        uses: What it may look at.
        verdict: shortcut (it gives a class away), weak (above chance, too little to matter), none (no more than
            chance), reference (no verdict, for comparison), encoded (the net knows this column), untestable.
        sentence: What was found, for people.
        separation: The numbers; None where untestable.
        p_adjusted: p-value after Holm's correction over all rows of the audit that have a verdict of this kind.
        class_names: The classes that were told apart, in the order of `separation.by_class`.
        column: The column that a probe predicts, else empty.
        parts: AUROC of the strongest class by each column of the metadata alone.
    """

    name: str
    scope: str
    uses: str
    verdict: str
    sentence: str
    separation: Separation | None = None
    p_adjusted: float | None = None
    class_names: tuple[str, ...] = ()
    column: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """A separation before its verdict; see `AuditRow`."""

    name: str
    scope: str
    separation: Separation
    class_names: tuple[str, ...]
    column: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)


def can_alarm(measured: Measurement) -> bool:
    """Whether a row of this name can have the verdict shortcut."""
    return measured.name not in (*_REFERENCES, "probe")


def judge(measured: Measurement, p_adjusted: float) -> AuditRow:
    """Give a measurement its verdict and sentence.

    Args:
        measured: The measurement.
        p_adjusted: Its p-value after correction for all that were measured beside it.
    """
    verdict = _verdict(measured, p_adjusted)
    return AuditRow(
        name=measured.name,
        scope=measured.scope,
        uses=_USES[measured.name].format(parts=", ".join(measured.parts), column=measured.column),
        verdict=verdict,
        sentence=_capitalise(_sentence(measured, verdict, p_adjusted)),
        separation=measured.separation,
        p_adjusted=p_adjusted,
        class_names=measured.class_names,
        column=measured.column,
        parts=measured.parts,
    )


def untestable(name: str, scope: str, reason: str, column: str = "") -> AuditRow:
    """The row of what could not be measured, for a reason that ends a sentence."""
    uses = _USES[name].format(parts="of the table", column=column)
    gives = f"the net knows {column}" if name == "probe" else f"{_SUBJECTS[name]} would give a class away"
    sentence = f"Whether {gives} {where(scope)} was not measured: {reason}."
    return AuditRow(name, scope, uses, UNTESTABLE, sentence, column=column)


def where(scope: str) -> str:
    """The scope as words that end a clause."""
    return _SCOPES.get(scope, f"on the part {scope}")


def _verdict(measured: Measurement, p_adjusted: float) -> str:
    if measured.name in _REFERENCES:
        return REFERENCE
    if p_adjusted > ALPHA:
        return NONE
    if measured.separation.strongest_interval[0] <= FLOOR:
        return WEAK
    return ENCODED if measured.name == "probe" else SHORTCUT


def _sentence(measured: Measurement, verdict: str, p_adjusted: float) -> str:
    if measured.name == "probe":
        return _probe_sentence(measured, verdict)
    found = measured.separation
    low, high = found.strongest_interval
    verb = "give" if measured.name in _PLURAL else "gives"
    gives = f"{verb} AUROC {found.by_class[found.strongest]:.2f} ({CONFIDENCE:.0%} interval {low:.2f} to {high:.2f})"
    text = f"{_SUBJECTS[measured.name]} {gives} for {_contrast(measured)} {where(measured.scope)}"
    return f"{text}: {_consequence(measured, verdict, p_adjusted)}."


def _contrast(measured: Measurement) -> str:
    names, strongest = measured.class_names, measured.separation.strongest
    return f"{names[1]} against {names[0]}" if len(names) == 2 else f"{names[strongest]} against the rest"


def _consequence(measured: Measurement, verdict: str, p_adjusted: float) -> str:
    if verdict == NONE:
        low, high = measured.separation.strongest_chance
        return f"chance is not excluded (it gives {low:.2f} to {high:.2f}; p = {p_adjusted:.2g} after correction)"
    if verdict == WEAK:
        return "more than chance, but too little to make a score"
    if measured.name == "net":
        return "to compare the other rows with"
    if measured.name == "thumbnail":
        return "no shortcut by itself, since findings show at this size too, but a net is worth only what it adds"
    weight = _weight(measured.separation.by_class[measured.separation.strongest])
    exception = ", unless lungs reach into this region" if measured.name in _CROPPED else ""
    return weight + exception + _heaviest(measured.parts)


def _weight(auroc: float) -> str:
    if auroc >= 0.95:
        return "a score there says little about disease"
    if auroc >= 0.75:
        return "a good part of a score there can be had without the disease"
    return "a part of a score there can be had without the disease"


def _heaviest(parts: Mapping[str, float]) -> str:
    if len(parts) < 2:
        return ""
    name = max(parts, key=parts.__getitem__)
    return f" (most of it from {name}, {parts[name]:.2f} alone)"


def _probe_sentence(measured: Measurement, verdict: str) -> str:
    found = measured.separation
    low, high = found.strongest_interval
    numbers = f"AUROC {found.by_class[found.strongest]:.2f}, {CONFIDENCE:.0%} interval {low:.2f} to {high:.2f}"
    knows = {NONE: "do not tell", WEAK: "hardly tell", ENCODED: "tell"}[verdict]
    ending = ": where this column goes with the class, the net can use it" if verdict == ENCODED else ""
    contrast = _contrast(measured)
    return f"the net's embeddings {knows} {measured.column} among images of one class ({contrast}: {numbers}){ending}."


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]
