"""What the words of one header say that an image shows, where that is no chest radiograph.

Knows nothing of tables, of files, or of what is done with such an image. Not guaranteed: a wrong header is believed.
"""

import re

MAYBE_CHEST, NO_RADIOGRAPH, ELSEWHERE = "maybe_chest", "no_radiograph", "elsewhere"
RADIOGRAPHS = ("CR", "DX", "DR", "RG", "RX", "OT", "SC")
"""Modalities that a chest radiograph may have; OT and SC say nothing."""

_RADIOGRAPH_OBJECTS = re.compile(r"^Computed Radiography|^Digital X-Ray Image|Secondary Capture|^Hardcopy")
_UID = re.compile(r"[\d.]+")
_CHEST = re.compile(r"CHEST|THORA|TORA[XC]|LUNG|PULM|\bCXR\b|\bRIBS?\b")
_NO_PART = re.compile(r"\s*(?:UNKNOWN|UNSPECIFIED|OTHER|NONE|N/?A)\s*")
_ELSEWHERE = re.compile(
    r"\b(?:TEETH|TOOTH|DENTAL|JAW|MANDIBLE|SKULL|HEAD|BRAIN|SINUS(?:ES)?|NECK|SPINE|ABDOMEN|KUB|PELVIS|HIPS?|FEMUR|"
    r"KNEES?|TIBIA|FIBULA|ANKLES?|FOOT|FEET|TOES?|LEGS?|SHOULDERS?|HUMERUS|ELBOWS?|FOREARM|WRISTS?|HANDS?|FINGERS?|"
    r"ARMS?|EXTREMITY|BREAST|MAMMO\w*)\b"
)


def find_subject(
    modality: str | None, object_name: str | None, body_part: str | None, series_description: str | None
) -> str:
    """What an image shows by its header.

    Args:
        modality: Upper case; None where the header says nothing.
        object_name: The standard's name of the SOP Class, or the UID itself where it has none; None likewise.
        body_part: Upper case; likewise.
        series_description: Likewise, in any case.

    Returns:
        'no_radiograph' (CT, ultrasound ...), 'elsewhere' (a radiograph of another part of the body) or 'maybe_chest'.
    """
    if is_other_modality(modality) or is_other_object(object_name):
        return NO_RADIOGRAPH
    elsewhere = is_other_part(body_part) or part_elsewhere(series_description) is not None
    return ELSEWHERE if elsewhere else MAYBE_CHEST


def is_other_modality(modality: str | None) -> bool:
    """Whether no radiograph has such a Modality."""
    return modality is not None and modality not in RADIOGRAPHS


def is_other_object(name: str | None) -> bool:
    """Whether no radiograph is such an object; one that is unknown to the standard, a bare UID, says nothing."""
    return name is not None and _UID.fullmatch(name) is None and _RADIOGRAPH_OBJECTS.search(name) is None


def is_other_part(body_part: str | None) -> bool:
    """Whether BodyPartExamined names something else than a chest."""
    return body_part is not None and not any((_CHEST.search(body_part), _NO_PART.fullmatch(body_part)))


def part_elsewhere(series_description: str | None) -> str | None:
    """The part of the body that SeriesDescription names beside no chest, in upper case; None where it names none."""
    text = "" if series_description is None else series_description.upper()
    match = None if _CHEST.search(text) else _ELSEWHERE.search(text)
    return None if match is None else match[0]
