"""The report as files: ``report.json`` with everything, ``report.html`` to read. Knows nothing of its collection."""

import json
from datetime import datetime
from pathlib import Path

from cxr.data.report.collect import Report, Thumbnails
from cxr.errors import DataError
from cxr.pages import render

JSON_FILE, PAGE_FILE = "report.json", "report.html"
FILES_PER_FINDING = 10
_TEMPLATE = Path(__file__).with_name("page.html")


def write_report(folder: Path, name: str, command: str, report: Report, thumbnails: Thumbnails) -> Path:
    """Write both files.

    Args:
        folder: Where; made if there is none.
        name: What the dataset is called.
        command: The command line, shown on the page.
        report: Of `collect`.
        thumbnails: Of `collect`.

    Returns:
        The page.

    Raises:
        DataError: The folder cannot be written.
    """
    heading = {"name": name, "command": command, "made": f"{datetime.now():%Y-%m-%d %H:%M}"}
    page = folder / PAGE_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON_FILE).write_text(json.dumps(heading | report, indent=1), encoding="utf-8")
        page.write_text(make_page(heading | report, thumbnails), encoding="utf-8")
    except OSError as error:
        raise DataError(f"expected to write the report to {folder}, but got: {error}; choose another --out") from error
    return page


def make_page(report: Report, thumbnails: Thumbnails) -> str:
    """The report as one HTML document without anything to load."""
    return render(_TEMPLATE, report=report, thumbnails=thumbnails, title=f"Data report: {report['name']}",
                  first=FILES_PER_FINDING)  # fmt: skip
