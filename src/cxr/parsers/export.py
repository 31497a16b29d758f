"""`cxr export`: a run as a bundle without torch."""

import argparse
from pathlib import Path

from cxr.parsers.group import Commands


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    parser = commands.add_parser("export", help="a run as a bundle that predicts without torch")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a run, an ensemble or AutoML; a bundle")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="config values that changed: data.root=PATH")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="the bundle to write (default: RUN/export)")
    parser.add_argument("--int8", action="store_true", help="also with 8-bit integers, and what these cost")
    parser.add_argument("--mobile", action="store_true", help="also as one ONNX file under 10 MB, with all it takes")
    parser.set_defaults(run=_run_export)


def _run_export(options: argparse.Namespace) -> int:
    from cxr.commands.export import Export, export, tell

    settings = Export(options.run_folder, options.out, options.int8, options.mobile, options.overrides)
    measured, bundle = export(settings)
    for line in tell(measured):
        print(line)
    print(f"bundle: {bundle}")
    return 0
