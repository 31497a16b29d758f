"""The page that shows maps, their scores and their sanity. Knows nothing of how they were made.

Everything in it may lie in a run folder: ids are those of the predictions table, and no path is named.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.pages import render

PAGE_FILE = "explain.html"
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
    """Write ``explain.html``, and the two results as JSON.

    Args:
        folder: Where; it is there.
        facts: `run`, `part`, `method`, `target` or None, `images` (how many the part has), `notes` (sentences).
        pictures: The gallery.
        localisation: `images`, `boxed`, `patients`, `classes`, and `scores` and `rows` of `measure_localisation`; None
            without boxes.
        sanity: `Sanity.to_dict` with `images`.

    Returns:
        The page.
    """
    _write_json(sanity, folder / "sanity.json")
    if localisation is not None:
        _write_json(localisation, folder / "localisation.json")
    sources = {picture.path.name: _embed(picture.path) for picture in pictures}
    page = folder / PAGE_FILE
    text = render(_TEMPLATE, title=f"What the net looks at: {facts['run']}", facts=facts, pictures=pictures,
                  sources=sources, localisation=localisation, sanity=sanity)  # fmt: skip
    page.write_text(text, encoding="utf-8")
    return page


def _write_json(values: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
