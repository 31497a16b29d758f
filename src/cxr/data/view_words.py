"""Which view the words of one header name. Knows nothing of tables, of files, or of which view is wanted."""

import re

UNKNOWN = "unknown"

_PA = re.compile(r"\b(?:P ?A|POSTERO ?ANTERIOR)\b")
_AP = re.compile(r"\b(?:A ?P|ANTERO ?POSTERIOR)\b")
_FRONTAL = re.compile(r"\bFRONTAL\b")
_LATERAL = "LL|RL|[LR]?LAT|LATERAL|SEITL|SEITLICH|PROFIL"
_OTHER = re.compile(rf"\b(?:{_LATERAL}|LLO|RLO|LAO|RAO|LPO|RPO|OBL|OBLIQUE|LLD|RLD|DECUB|DECUBITUS|XTABLE|SWIMMERS?)\b")


def find_view(view_position: str | None, series_description: str | None, patient_orientation: str | None) -> str:
    """The view by ViewPosition, else by SeriesDescription, else by PatientOrientation.

    Args:
        view_position: As in the header; None where it says nothing.
        series_description: Likewise.
        patient_orientation: Likewise; rows and columns with a backslash between them.

    Returns:
        'pa', 'ap', 'frontal' (direction unknown), 'other' (lateral, oblique ...) or 'unknown'.
    """
    texts = (view_position, series_description, patient_orientation)
    judges = (view_of_code, view_of_description, view_of_orientation)
    found = (judge(text) for text, judge in zip(texts, judges, strict=True) if text is not None)
    return next((view for view in found if view != UNKNOWN), UNKNOWN)


def view_of_code(text: str) -> str:
    """The view by ViewPosition: 'AP LLD' is a decubitus image."""
    frontal, other = _named_views(text)
    return "other" if other else frontal


def view_of_description(text: str) -> str:
    """The view by SeriesDescription: 'Chest PA and LAT' tells nothing of one image of the series."""
    frontal, other = _named_views(text)
    if not other:
        return frontal
    return "other" if frontal == UNKNOWN else UNKNOWN


def view_of_orientation(text: str) -> str:
    """The view by PatientOrientation, rows then columns: from left or right is frontal, from front or back lateral."""
    upper = text.upper()
    if re.match(r"[LR][APHF]*\\[HF]", upper):
        return "frontal"
    return "other" if re.match(r"[AP][LRHF]*\\[HF]", upper) else UNKNOWN


def _named_views(text: str) -> tuple[str, bool]:
    """The frontal view that a text names, or 'unknown', and whether it names another view."""
    words = re.sub(r"[^A-Z]+", " ", text.upper())
    pa, ap, frontal, other = (pattern.search(words) is not None for pattern in (_PA, _AP, _FRONTAL, _OTHER))
    if frontal or (pa and ap):
        return "frontal", other
    return "pa" if pa else "ap" if ap else UNKNOWN, other
