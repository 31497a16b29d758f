"""`cxr evaluate`: reports of runs and tables."""

import argparse
from pathlib import Path

from cxr.parsers.group import Commands


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    parser = commands.add_parser("evaluate", help="what a model is worth: numbers with intervals, figures, a report")
    parser.add_argument("source", type=Path, metavar="RUN", help="a run folder, or a CSV of predictions on test images")
    parser.add_argument("--validation", type=Path, metavar="CSV", help="of a table: predictions on validation images")
    parser.add_argument("--train", type=Path, metavar="CSV", help="of a table: predictions on training images")
    parser.add_argument("--classes", metavar="A,B", help="of a table: the class names in order")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: the run, or a folder beside the table")
    parser.add_argument(
        "--operating-point", metavar="RULE",
        help="how the threshold is chosen on validation (default: as in the run, else the first of these): "
        "'sensitivity >= 0.9', 'specificity >= 0.9', 'youden', 'cost fn=10 fp=1 prevalence=0.1' or 'threshold 0.5'",
    )  # fmt: skip
    parser.add_argument("--prevalence", type=float, metavar="SHARE", help="at which PPV and NPV are told, such as 0.1")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument(
        "--subgroups", metavar="A,B", help="columns to measure by (default: sex, age, view, manufacturer, source)"
    )
    parser.add_argument(
        "--require", action="append", default=[], metavar="GOAL",
        help="'test/accuracy >= 0.85', 'test/auroc.low >= 0.9' (of its interval), 'best/epoch <= 20'; may be repeated; "
        "exit code 1 where one is missed",
    )  # fmt: skip
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(options: argparse.Namespace) -> int:
    from cxr.commands.evaluate import evaluate, judge_goals
    from cxr.evaluation.goals import parse_goal
    from cxr.evaluation.predictions import SUBGROUPS
    from cxr.evaluation.report.collect import Options

    chosen = Options(
        prevalence=options.prevalence,
        draws=options.draws,
        subgroups=SUBGROUPS if options.subgroups is None else options.subgroups.split(","),
    )
    goals = [parse_goal(text) for text in options.require]
    names = None if options.classes is None else options.classes.split(",")
    tables = (options.validation, options.train)
    page = evaluate(options.source, *tables, names, options.out, chosen, options.operating_point, options.command)
    print(f"report: {page}")
    judged = judge_goals(goals, page) if goals else []
    for goal, value in judged:
        told = "not defined" if value is None else f"{value:.4g}"
        print(f"{'reached' if goal.is_met(value) else 'missed'}: {goal}, got {told}")
    return 0 if all(goal.is_met(value) for goal, value in judged) else 1
