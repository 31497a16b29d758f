"""`cxr compare`: which model is better."""

import argparse
import os
from pathlib import Path

from cxr.parsers.group import Commands


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    parser = commands.add_parser("compare", help="which of several models is better on the same test images")
    parser.add_argument("sources", nargs="+", type=Path, metavar="RUN", help="folders of runs or plans, or CSVs")
    parser.add_argument("--classes", metavar="A,B", help="of tables: the class names in order")
    parser.add_argument("--pool", action="store_true", help="take the seeds of one recipe, and a plan, as one")
    parser.add_argument("--no-costs", action="store_true", help="do not load the nets to tell their size and speed")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: comparison in the log folder")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap (default: 1000)")
    parser.set_defaults(run=_run_compare)


def _run_compare(options: argparse.Namespace) -> int:
    from cxr.commands.compare import compare_sources
    from cxr.evaluation.report.comparison import to_markdown

    names = None if options.classes is None else options.classes.split(",")
    costs = not options.no_costs
    out = Path(os.environ.get("CXR_LOG_DIR", "logs")) / "comparison" if options.out is None else options.out
    compared = compare_sources(options.sources, names, options.pool, costs, out, options.draws)
    print(to_markdown(compared), end="")
    print(f"comparison: {out / 'comparison.html'}")
    return 0
