"""What in a table of files deserves a look, one rule per finding. Knows nothing of how the table was made.

Each rule takes the table of `describe_files` with the columns of `add_identity` and the booleans of `PixelLook`, and
gives for each row a few words, or None where there is nothing to say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cxr.data.subject_words import is_other_modality, is_other_object, is_other_part, part_elsewhere
from cxr.data.views import find_views
from cxr.imaging.dicom_header import name_uid

CONSTANT = "constant image"
_WIDEST = 2.0

Judge = Callable[[pd.DataFrame], pd.Series]


@dataclass(frozen=True)
class Rule:
    """One finding.

    Attributes:
        key: Its name in the JSON.
        level: 'problem' (the file is or should be left out), 'look' (a person should look) or 'note'.
        title: Its name on the page.
        meaning: What it means and what to do, in a sentence or two.
        judge: Words for each row, None where there is nothing to say.
    """

    key: str
    level: str
    title: str
    meaning: str
    judge: Judge


def find_all(files: pd.DataFrame) -> list[dict[str, Any]]:
    """Apply every rule.

    Args:
        files: The table, with `fate`.

    Returns:
        One entry per rule that found something: key, level, title, meaning, count and the files, each with path, detail
        and fate, sorted by path.
    """
    files = files.astype(object).where(files.notna(), None)
    found = ((rule, rule.judge(files).dropna()) for rule in RULES)
    return [_tell(rule, words, files) for rule, words in found if len(words)]


def _tell(rule: Rule, words: pd.Series, files: pd.DataFrame) -> dict[str, Any]:
    rows = files.loc[words.index].assign(detail=words).sort_values("image_path")
    listed = zip(rows["image_path"], rows["detail"], rows["fate"], strict=True)
    return {
        "key": rule.key,
        "level": rule.level,
        "title": rule.title,
        "meaning": rule.meaning,
        "count": len(rows),
        "files": [{"path": path, "detail": detail, "fate": fate} for path, detail, fate in listed],
    }


def _per_row(judge: Callable[[Any], str | None]) -> Judge:
    return lambda files: pd.Series([judge(row) for row in files.itertuples()], index=files.index, dtype=object)


def _filled(column: str) -> Judge:
    return lambda files: files[column]


def _flagged(column: str, words: str) -> Judge:
    return lambda files: pd.Series(words, index=files.index, dtype=object).where(files[column].eq(True), None)


def _no_image(row: Any) -> str | None:
    error = row.error
    if error is None or CONSTANT in error:
        return None
    return str(error).removeprefix(f"{row.image_path}: ")


def _constant(row: Any) -> str | None:
    return None if row.error is None or CONSTANT not in row.error else row.error.removeprefix(f"{row.image_path}: ")


def _not_a_chest(row: Any) -> str | None:
    object_name = None if row.sop_class is None else name_uid(row.sop_class)
    described = part_elsewhere(row.series_description)
    words = [
        *([f"Modality {row.modality}"] if is_other_modality(row.modality) else []),
        *([f"SOP Class {object_name}"] if is_other_object(object_name) else []),
        *([f"BodyPartExamined {row.body_part}"] if is_other_part(row.body_part) else []),
        *([f"SeriesDescription names {described}"] if described is not None else []),
    ]
    return ", ".join(words) if words else None


def _not_frontal(files: pd.DataFrame) -> pd.Series:
    said = pd.Series(
        [
            ", ".join(f"{name} {value}" for name, value in zip(_VIEW_TAGS.values(), values, strict=True) if value)
            for values in files[list(_VIEW_TAGS)].itertuples(index=False)
        ],
        index=files.index,
        dtype=object,
    )
    return said.where(find_views(files) == "other", None)


_VIEW_TAGS = {
    "view_position": "ViewPosition",
    "series_description": "SeriesDescription",
    "patient_orientation": "PatientOrientation",
}


def _burned_in(row: Any) -> str | None:
    return "BurnedInAnnotation YES" if row.burned_in_annotation == "YES" else None


def _odd_size(row: Any) -> str | None:
    if not row.rows or not row.columns:
        return None
    size = f"{row.rows} x {row.columns}"
    if row.rows < row.input_rows or row.columns < row.input_columns:
        return f"{size}, enlarged to {row.input_rows} x {row.input_columns}"
    ratio = max(row.rows / row.columns, row.columns / row.rows)
    return f"{size}, sides 1 : {ratio:.1f}" if ratio > _WIDEST else None


def _several_frames(row: Any) -> str | None:
    frames = row.number_of_frames
    return f"{frames} frames" if frames is not None and frames > 1 else None


RULES = (
    Rule(
        "no_image", "problem", "Gives no image",
        "The file cannot be read or decoded; training stops at it, or goes without it with data.on_bad_file=skip.",
        _per_row(_no_image),
    ),
    Rule(
        "constant", "problem", "Constant image",
        "Every pixel has the same value; counts as a file that gives no image.",
        _per_row(_constant),
    ),
    Rule(
        "not_a_chest", "problem", "Not a chest radiograph, says the header",
        "Modality, SOP Class, Body Part Examined or Series Description name something else. Leave these files out of "
        "the dataset.",
        _per_row(_not_a_chest),
    ),
    Rule(
        "not_frontal", "look", "Not a frontal view, says the header",
        "Lateral, oblique or decubitus; data.view_filter=frontal leaves these out.",
        _not_frontal,
    ),
    Rule(
        "inverted", "look", "Looks inverted",
        "The spine is darker than the lungs: a negative whose header does not say so, a chest far off the centre, or "
        "no frontal chest.",
        _flagged("inverted", "spine darker than lungs"),
    ),
    Rule(
        "low_contrast", "look", "Nearly constant",
        "98% of the pixels lie within a sixteenth of the grey range.",
        _flagged("low_contrast", "hardly any contrast"),
    ),
    Rule(
        "burned_in", "look", "Text in the pixels, says the header",
        "Burned In Annotation is YES: the image may show names or dates.",
        _per_row(_burned_in),
    ),
    Rule(
        "text", "look", "Text in the pixels, suspected",
        "Letter-like strokes in a row near the upper or lower border. Text may name the patient, and a net may read "
        "the site off it. About half of the lines of text are found; single letters such as L and R are not meant.",
        _flagged("text", "strokes like a line of text"),
    ),
    Rule(
        "patient", "look", "Patient elements filled",
        "Elements that name the patient hold a value, maybe an invented one. Listed by name, never by value.",
        _filled("patient"),
    ),
    Rule(
        "places_and_staff", "look", "Institution and staff elements filled",
        "Elements that name the hospital, its devices or its staff hold a value.",
        _filled("places_and_staff"),
    ),
    Rule(
        "private", "look", "Private elements",
        "Elements of the manufacturer, by group; they may hold anything.",
        _filled("private_groups"),
    ),
    Rule(
        "dates", "note", "Dates filled",
        "Dates of study, series or acquisition hold a value, maybe a shifted one.",
        _filled("dates"),
    ),
    Rule(
        "odd_size", "note", "Odd size",
        "Smaller than the net's input, or more than twice as long as wide.",
        _per_row(_odd_size),
    ),
    Rule(
        "several_frames", "note", "Several frames",
        "Only the first frame is read.",
        _per_row(_several_frames),
    ),
)  # fmt: skip
