"""What `cxr evaluate` does: a run, or tables of predictions from anywhere -> numbers, figures, documents, a report."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cxr.errors import DataError
from cxr.evaluation.goals import Goal, name_numbers
from cxr.evaluation.report.collect import Options
from cxr.evaluation.report.decisions import rule_of
from cxr.evaluation.report.material import Material, read_run, read_tables
from cxr.evaluation.report.page import NUMBERS_FILE, write_report


def evaluate(
    source: Path,
    validation: Path | None,
    train: Path | None,
    class_names: Sequence[str] | None,
    out: Path | None,
    options: Options,
    rule: str | None,
    command: str,
) -> Path:
    """Write the report of a run or of tables.

    Args:
        source: A run folder, or the predictions of a test part as CSV.
        validation: Predictions on validation, for tables.
        train: Predictions on train, for tables.
        class_names: For tables without a sidecar.
        out: Where to; None is the run folder, or a folder named as the table beside it.
        options: What a reader may choose, but the rule.
        rule: How the operating point is chosen; None as the run chose its own.
        command: The command line, shown in the report.

    Returns:
        The page.

    Raises:
        ConfigError: The rule is none.
        DataError: Nothing can be read there, the tables are not sound, or the folder cannot be written.
    """
    options = options if rule is None else replace(options, rule=rule)
    material = _read(source, validation, train, class_names)
    folder = out if out is not None else source if source.is_dir() else source.with_name(f"{source.stem}_report")
    options = replace(options, rule=rule_of(material)) if rule is None else options
    return write_report(material, folder, options, command)


def judge_goals(goals: Sequence[Goal], page: Path) -> list[tuple[Goal, float | None]]:
    """Look the goals up in the numbers beside a report.

    Args:
        goals: What must be reached.
        page: Of `evaluate`.

    Returns:
        Each goal with its number, None where it is not defined.

    Raises:
        ConfigError: A goal names no number of the report.
    """
    numbers = name_numbers(json.loads(page.with_name(NUMBERS_FILE).read_text(encoding="utf-8"))["evaluation"])
    return [(goal, goal.look_up(numbers)) for goal in goals]


def _read(source: Path, validation: Path | None, train: Path | None, class_names: Sequence[str] | None) -> Material:
    if not source.is_dir():
        return read_tables(source, validation, train, class_names)
    if validation is not None or train is not None or class_names is not None:
        raise DataError(
            f"expected --validation, --train and --classes beside a table, but {source} is a run, which has its own; "
            "leave them out"
        )
    return read_run(source)
