"""HTML pages that stand alone: one file, nothing loaded from anywhere. Knows nothing of what they show.

Every value is escaped; only what `cxr.pages.charts` draws goes in as it is.
"""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cxr.pages import charts


def embed_picture(path: Path) -> str:
    """A PNG file as the ``data:`` address of an image."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def render(template: Path, **values: object) -> str:
    """The page that a template makes.

    Args:
        template: A Jinja file, which may extend ``base.html`` of this room.
        values: What the template names; the functions of `cxr.pages.charts` are there as ``charts``.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, template.parent.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = "{:,}".format
    return environment.get_template(template.name).render(values, charts=charts)
