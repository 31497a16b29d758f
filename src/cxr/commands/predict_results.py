"""What `cxr predict` writes of each image, as CSV, JSON lines or a table; a file of results is continued.

Knows nothing of how images are read or predicted. Every result is one line, so that a kill tears the last one only.
"""

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from filelock import FileLock, Timeout

from cxr.data.formulas import guard, unguard
from cxr.errors import DataError
from cxr.inference.predictor import Predictor
from cxr.inference.sources import to_line
from cxr.inference.verdict import Verdict, list_points

log = logging.getLogger(__name__)

OK, ERROR = "ok", "error"
CSV, JSONL, TABLE = "csv", "jsonl", "table"
SHOWN_CLASSES = 3
WIDTH = 120
"""Columns of a table that goes into no terminal."""


@dataclass(frozen=True)
class Row:
    """What became of one image.

    Attributes:
        path: How it is told, on one line.
        verdict: None where it could not be read.
        error: One sentence why, on one line; None where it could.
        overlay: Name of the picture with the map; None without one.
    """

    path: str
    verdict: Verdict | None = None
    error: str | None = None
    overlay: str | None = None


class Layout(Protocol):
    """One row, one line.

    Attributes:
        head: The first line of a file, or nothing.
        start: How every file begins.
    """

    head: str
    start: str

    def write(self, row: Row) -> str:
        """The line of a row."""

    def read(self, line: str) -> Mapping[str, Any]:
        """At least path, status and model of a line.

        Raises:
            ValueError: It is no such line.
        """


class CsvLayout:
    """A column for each probability and each decision; no text is one that a spreadsheet takes for a formula.

    Args:
        predictor: Whose classes and operating points make the columns.
        model: Which bundle gave the answers.
        overlays: Whether there are pictures.
    """

    def __init__(self, predictor: Predictor, model: str, overlays: bool) -> None:
        self._names, self._points, self._model = predictor.class_names, list(list_points(predictor)), model
        probs, decisions = [f"prob_{name}" for name in self._names], [f"decision_{name}" for name in self._points]
        shown = ["overlay"] if overlays else []
        columns = ["path", "status", "label", *probs, *decisions, "abstained", "warnings", "error", *shown, "model"]
        self._columns = [to_line(column) for column in columns]
        self.head = self.start = _to_csv(self._columns)

    def write(self, row: Row) -> str:
        """See `Layout.write`."""
        values: dict[str, Any] = {"path": row.path, "status": ERROR, "model": self._model}
        values |= {"error": row.error, "overlay": row.overlay}
        if row.verdict is not None:
            values |= {"status": OK, "label": to_line(row.verdict.label), "warnings": ";".join(row.verdict.warnings)}
            values |= {f"prob_{name}": f"{prob:.6g}" for name, prob in row.verdict.probs.items()}
            values |= {f"decision_{name}": _decision(found) for name, found in row.verdict.decisions.items()}
            values["abstained"] = {True: "yes", False: "no", None: None}[row.verdict.abstained]
        plain = {to_line(name): "" if value is None else guard(str(value)) for name, value in values.items()}
        return _to_csv([plain.get(column) for column in self._columns])

    def read(self, line: str) -> Mapping[str, Any]:
        """See `Layout.read`."""
        try:
            (cells,) = csv.reader([line], strict=True)
        except csv.Error as error:
            raise ValueError(str(error)) from error
        return dict(zip(self._columns, map(unguard, cells), strict=True))


class JsonLayout:
    """An object a line, with the fields of `Verdict`.

    Args:
        model: Which bundle gave the answers.
    """

    head, start = "", '{"path": '

    def __init__(self, model: str) -> None:
        self._model = model

    def write(self, row: Row) -> str:
        """See `Layout.write`."""
        values: dict[str, Any] = {"path": row.path, "status": ERROR if row.verdict is None else OK}
        values |= {} if row.verdict is None else row.verdict.to_dict()
        values |= {} if row.error is None else {"error": row.error}
        values |= {} if row.overlay is None else {"overlay": row.overlay}
        return json.dumps({**values, "model": self._model}, ensure_ascii=False) + "\n"

    def read(self, line: str) -> Mapping[str, Any]:
        """See `Layout.read`."""
        values = json.loads(line)
        if not isinstance(values, dict) or not {"path", "status", "model"} <= values.keys():
            raise ValueError("no path, status or model")
        return values


class Results(Protocol):
    """Where rows go.

    Attributes:
        done: Path -> whether it could be read, of the rows that were there before.
    """

    done: Mapping[str, bool]

    def write(self, rows: Iterable[Row]) -> None:
        """Add rows; they are there when this returns."""


class LineResults:
    """Rows as lines of a stream.

    Args:
        stream: What they are written to.
        layout: Makes the lines.
        done: See `Results`.
    """

    def __init__(self, stream: TextIO, layout: Layout, done: Mapping[str, bool] | None = None) -> None:
        self.done = {} if done is None else done
        self._stream, self._layout = stream, layout

    def write(self, rows: Iterable[Row]) -> None:
        """See `Results.write`."""
        self._stream.write("".join(self._layout.write(row) for row in rows))
        self._stream.flush()


class TableResults:
    """Rows as a table in the terminal, its names once at the top.

    Args:
        stream: What it is written to.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self.done: Mapping[str, bool] = {}
        self._console = Console(file=stream, width=None if stream.isatty() else WIDTH)
        self._named = False

    def write(self, rows: Iterable[Row]) -> None:
        """See `Results.write`."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=not self._named, expand=True)
        for name, share in (("file", 4), ("answer", 2), ("probabilities", 3), ("operating point", 2), ("remarks", 4)):
            table.add_column(name, ratio=share, overflow="fold")
        for row in rows:
            table.add_row(*(Text(to_line(cell)) for cell in _to_cells(row)))
        self._console.print(table)
        self._named = True


@contextmanager
def open_results(out: Path | None, layout: Layout, stream: TextIO, model: str) -> Iterator[LineResults]:
    """Rows into a file, behind those that it has, or into a stream.

    Args:
        out: The file; None writes to the stream.
        layout: Makes the lines.
        stream: Standard output.
        model: Which bundle gives the answers.

    Raises:
        DataError: The file holds something else, or answers of another bundle, or cannot be read or written; another
            process writes it.
    """
    if out is None:
        stream.write(layout.head)
        yield LineResults(stream, layout)
        return
    with ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            if not out.exists() or out.is_file():
                stack.enter_context(_alone(out))
            known = _read_known(out, layout, model)
            file = stack.enter_context(out.open("a", encoding="utf-8", newline=""))
        except OSError as error:
            raise DataError(
                f"expected a file to write to, but {out} is none ({error.strerror}); choose another"
            ) from error
        if not out.is_file():
            raise DataError(f"expected a file to write to, but {out} is none (no regular file); choose another")
        file.truncate(known.bytes)
        if known.bytes == 0:
            file.write(layout.head)
        yield LineResults(file, layout, known.done)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Let no second process write the same file, where files can be locked."""
    lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except (NotImplementedError, PermissionError):  # a disk without locks, or a folder where only the file is writable
        log.warning("%s cannot be locked: see to it that no other command writes there", out)
    except Timeout as error:
        raise DataError(f"another process is writing {out}; wait for its end, or choose another --out") from error
    try:
        yield
    finally:
        lock.release()


@dataclass
class _Known:
    """What a file of results holds: path -> whether it could be read, and how many bytes are whole lines."""

    done: dict[str, bool] = field(default_factory=dict)
    bytes: int = 0


def _read_known(out: Path, layout: Layout, model: str) -> _Known:
    known = _Known()
    if not out.is_file():
        return known
    with out.open("rb") as lines:
        for number, content in enumerate(lines, start=1):
            line = content.decode("utf-8", "replace")
            _check_start(out, layout, line, number)
            if not content.endswith(b"\n"):
                break
            known.bytes += len(content)
            if number > 1 or not layout.head:
                record = _read_record(out, layout, line, number)
                _check_model(out, record, model)
                known.done[record["path"]] = record["status"] == OK
    return known


def _check_start(out: Path, layout: Layout, line: str, number: int) -> None:
    """Refuse a file that begins otherwise, also where only a part of its first line was written."""
    length = min(len(line), len(layout.start))
    if number == 1 and line[:length] != layout.start[:length]:
        raise DataError(
            f"expected {out} to begin as results of this bundle and these options do, got {line[:60]!r}; choose "
            "another --out"
        )


def _read_record(out: Path, layout: Layout, line: str, number: int) -> Mapping[str, Any]:
    try:
        return layout.read(line)
    except ValueError as error:
        raise DataError(
            f"expected results of cxr predict in {out}, but line {number} is none ({error}); choose another --out"
        ) from error


def _check_model(out: Path, record: Mapping[str, Any], model: str) -> None:
    if record["model"] != model:
        raise DataError(
            f"expected {out} to hold answers of the bundle {model}, got some of {record['model']}; choose another --out"
        )


def _to_csv(cells: Sequence[str | None]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _decision(found: bool) -> str:
    return "positive" if found else "negative"


def _to_cells(row: Row) -> Sequence[str]:
    if row.verdict is None:
        return row.path, ERROR, "", "", "" if row.error is None else row.error
    likely = sorted(row.verdict.probs.items(), key=lambda item: -item[1])
    probs = ", ".join(f"{name} {prob:.3f}" for name, prob in likely[:SHOWN_CLASSES])
    hidden = f", {len(likely) - SHOWN_CLASSES} others less" if len(likely) > SHOWN_CLASSES else ""
    decisions = ", ".join(f"{name} {_decision(found)}" for name, found in row.verdict.decisions.items())
    remarks = [*(["abstains"] if row.verdict.abstained else []), *row.verdict.warnings]
    return row.path, row.verdict.label, probs + hidden, decisions, ", ".join(remarks)
