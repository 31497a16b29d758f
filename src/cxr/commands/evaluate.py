"""What `cxr evaluate` does: a run, or tables of predictions from anywhere -> numbers, figures, documents, a report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cxr.errors import DataError
from cxr.evaluation.report.collect import Options, rule_of
from cxr.evaluation.report.material import Material, read_run, read_tables
from cxr.evaluation.report.page import write_report


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


def _read(source: Path, validation: Path | None, train: Path | None, class_names: Sequence[str] | None) -> Material:
    if not source.is_dir():
        return read_tables(source, validation, train, class_names)
    if validation is not None or train is not None or class_names is not None:
        raise DataError(
            f"expected --validation, --train and --classes beside a table, but {source} is a run, which has its own; "
            "leave them out"
        )
    return read_run(source)
