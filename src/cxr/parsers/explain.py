"""`cxr explain`: what a net looks at."""

import argparse
from pathlib import Path

from cxr.parsers.group import Commands, add_finished_run

SALIENCY_METHODS = ("gradcam", "gradcam++", "occlusion", "integrated_gradients")


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    parser = commands.add_parser("explain", help="what the net of a run looks at, and how far that can be believed")
    add_finished_run(parser)
    parser.add_argument("--part", choices=("val", "test"), default="test", help="default: test")
    parser.add_argument(
        "--method", choices=SALIENCY_METHODS, default="gradcam", help="default: gradcam; occlusion suits every net"
    )
    parser.add_argument("--images", type=int, default=64, metavar="N", help="images to score on (default: 64)")
    parser.add_argument("--each", type=int, default=6, metavar="N", help="images of each kind to show (default: 6)")
    parser.add_argument("--target", metavar="NAME", help="which target of a run with several")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: explain/<part>_<method> in the run folder")
    parser.set_defaults(run=_run_explain)


def _run_explain(options: argparse.Namespace) -> int:
    from cxr.commands.explain import Explanation, explain

    settings = Explanation(options.run_folder, options.part, options.method, options.images, options.each,
                           options.target, options.overrides, options.out)  # fmt: skip
    found, page = explain(settings)
    if found["localisation"] is None:
        print("localisation: not measured, no image has boxes")
    else:
        scores = found["localisation"]["scores"]
        for name, words in (("map", "the maps"), ("others", "others' boxes"), ("centre", "the middle")):
            values = ", ".join(
                f"{key} {scores[name][key]['value']:.3f}" for key in ("pointing", "iou", "average_precision")
            )
            print(f"{words + ':':<15}{values}")
    print(f"sanity: {found['sanity']['verdict']}")
    print(f"page: {page}")
    return 0
