"""`cxr predict`: what a model says of images."""

import argparse
import sys
from pathlib import Path

from cxr.parsers.group import ENGINES, Commands


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    parser = commands.add_parser("predict", help="what a model says of images: answers, probabilities, warnings")
    parser.add_argument(
        "images", nargs="+", metavar="PATH",
        help="DICOM, PNG, JPEG, TIFF or BMP files, folders, zip files, quoted patterns ('scans/**/*.dcm'), or - for a "
        "list of paths on standard input",
    )  # fmt: skip
    parser.add_argument("--bundle", type=Path, required=True, metavar="FOLDER", help="a bundle, or the folder of a run")
    parser.add_argument("--out", type=Path, metavar="FILE", help=".csv or .jsonl; the same command again continues it")
    parser.add_argument("--format", choices=("table", "csv", "jsonl"), help="default: as --out ends, else table")
    parser.add_argument("--overlays", type=Path, metavar="FOLDER", help="write pictures of what the net looks at")
    parser.add_argument("--engine", choices=ENGINES, help="what runs the nets (default: onnx where exported)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="images predicted at once (default: 16)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read files (default: one per core)")
    parser.set_defaults(
        run=_run_predict, exit_after_error=2, after_interrupt="with --out, the same command continues where it stopped"
    )


def _run_predict(options: argparse.Namespace) -> int:
    from cxr.commands.predict import Prediction, predict, tell

    settings = Prediction(options.images, options.bundle, options.out, options.format, options.overlays,
                          options.engine, options.batch, options.workers)  # fmt: skip
    summary = predict(settings)
    print(tell(summary), file=sys.stderr)
    if summary.predicted == 0:
        return 2
    return 1 if summary.failed else 0
