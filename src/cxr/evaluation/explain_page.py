"""The page that shows maps, their scores and their sanity. Knows nothing of how they were made.

Everything in it may lie in a run folder: ids are those of the predictions table, and no path is named.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.evaluation.drawing import can_draw
from cxr.pages import embed_picture, render

PAGE_FILE = "explain.html"
FACTS_FILE, SANITY_FILE, BOXES_FILE = "facts.json", "sanity.json", "localisation.json"
_TEMPLATE = Path(__file__).with_name("explain_page.html")


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery.

    Attributes:
        kind: One of `cxr.evaluation.gallery.KINDS`.
        path: The PNG file.
        caption: What it shows, in words.
    """

    kind: str
    path: Path
    caption: str


def write_page(
    folder: Path,
    facts: Mapping[str, Any],
    pictures: Sequence[Picture],
    localisation: Mapping[str, Any] | None,
    sanity: Mapping[str, Any],
) -> Path:
    """Write ``explain.html``, and what it is about and found as JSON, for `read_explanations`.

    Args:
        folder: Where; it is there.
        facts: `run`, `part`, `method`, `target` or None, `images` (how many the part has), `notes` (sentences).
        pictures: The gallery.
        localisation: `images`, `boxed`, `patients`, `classes`, and what `measure_localisation` found as plain values;
            None without boxes.
        sanity: `Sanity.to_dict` with `images`.

    Returns:
        The page.
    """
    found = {FACTS_FILE: facts, SANITY_FILE: sanity} | ({} if localisation is None else {BOXES_FILE: localisation})
    (folder / BOXES_FILE).unlink(missing_ok=True)
    for name, values in found.items():
        _write_json(values, folder / name)
    sources = {picture.path.name: embed_picture(picture.path) for picture in pictures}
    page = folder / PAGE_FILE
    text = render(_TEMPLATE, title=f"What the net looks at: {facts['run']}", facts=facts, pictures=pictures,
                  sources=sources, localisation=localisation, sanity=sanity, can_draw=can_draw)  # fmt: skip
    page.write_text(text, encoding="utf-8")
    return page


def read_explanations(run: Path) -> list[dict[str, Any]]:
    """What `write_page` left in the folders of ``explain/`` of a run, in the order of their names.

    Returns:
        For each its facts, `sanity`, and `localisation` or None, without the scores of single images.
    """
    return [_read_explanation(facts.parent) for facts in sorted(run.glob(f"explain/*/{FACTS_FILE}"))]


def _read_explanation(folder: Path) -> dict[str, Any]:
    files = {name: folder / name for name in (FACTS_FILE, SANITY_FILE, BOXES_FILE)}
    known = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items() if path.exists()}
    boxes = known.get(BOXES_FILE)
    localisation = None if boxes is None else {key: value for key, value in boxes.items() if key != "rows"}
    return known[FACTS_FILE] | {"sanity": known[SANITY_FILE], "localisation": localisation}


def _write_json(values: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
