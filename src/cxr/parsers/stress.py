"""`cxr stress`: what changes of images cost."""

import argparse
from pathlib import Path

from cxr.parsers.group import Commands, add_finished_run


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    parser = commands.add_parser("stress", help="what changes of brightness, contrast, scale and the like cost a run")
    add_finished_run(parser)
    parser.add_argument("--part", choices=("val", "test"), default="val", help="default: val")
    parser.add_argument("--images", type=int, default=500, metavar="N", help="images at most (default: 500)")
    parser.add_argument("--target", metavar="NAME", help="which target of a run with several")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: stress/<part> in the run folder")
    parser.set_defaults(run=_run_stress)


def _run_stress(options: argparse.Namespace) -> int:
    from cxr.commands.stress import StressTest, stress

    settings = StressTest(options.run_folder, options.part, options.images, options.target, options.overrides,
                          options.out)  # fmt: skip
    table, folder = stress(settings)
    for _, row in table.iterrows():
        values = f"AUROC {row['auroc']:.3f}   balanced accuracy {row['balanced_accuracy']:.3f}"
        print(f"{row['change'] + ' ' + row['strength']:<24}{values}   other answers {row['moved']} of {row['n']}")
    print(f"tables and figures: {folder}")
    return 0
