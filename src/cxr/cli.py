"""The command `cxr`: for people with images. Each sub-command is a parser here and a function elsewhere.

Importing this module, and `cxr --help`, import neither torch nor any dataset reader: handlers import what they need.
"""

import argparse
import errno
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import load_dotenv

from cxr import __version__
from cxr.data.download.catalogue import DATASETS, data_dir, find_dataset
from cxr.errors import CxrError

OVERRIDES_HELP = "as for train.py, such as data=chest_xray data.root=PATH; a recipe's data.limit does not count"

SALIENCY_METHODS = ("gradcam", "gradcam++", "occlusion", "integrated_gradients")

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    Commands = _SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one `cxr` command.

    Args:
        arguments: Words after `cxr`; None takes them from the command line.

    Returns:
        0 on success, 1 after an error told in one sentence on stderr, 130 after Ctrl-C.
    """
    load_dotenv(Path.cwd() / ".env")
    options = make_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return int(options.run(options))
    except CxrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {options.after_interrupt}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("error: no space left on the disk; free some, or choose another folder with --out", file=sys.stderr)
        return 1


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """What `warnings.showwarning` is set to: the sentence, as the log tells it, without a line of code."""
    logging.getLogger("cxr").warning("%s", message)


def make_parser() -> argparse.ArgumentParser:
    """The parser of `cxr` with all sub-commands; parsed options carry the handler as `run`."""
    parser = argparse.ArgumentParser(prog="cxr", description="Chest X-ray classification whose worth is shown.")
    parser.add_argument("--version", action="version", version=f"cxr {__version__}")
    parser.set_defaults(after_interrupt="nothing was left half done")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_doctor, _add_data, _add_explain, _add_sweep):
        add(commands)
    return parser


def _add_doctor(commands: "Commands") -> None:
    parser = commands.add_parser("doctor", help="what works on this machine, with a remedy for what does not")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_run_doctor)


def _run_doctor(options: argparse.Namespace) -> int:
    from cxr.doctor import checks_to_json, examine, is_healthy, print_checks

    checks = examine()
    if options.json:
        print(checks_to_json(checks))
    else:
        print_checks(checks)
    return 0 if is_healthy(checks) else 1


def _add_data(commands: "Commands") -> None:
    actions = _add_group(commands, "data", "datasets on this machine")
    get = actions.add_parser("get", help="download a public dataset from Kaggle, verify and unpack it")
    names = ", ".join(DATASETS)
    get.add_argument("--dataset", default="siim", metavar="NAME", help=f"one of {names} (default: siim)")
    get.add_argument("--out", type=Path, metavar="FOLDER", help="data folder (default: CXR_DATA_DIR, else data)")
    get.add_argument("--dry-run", action="store_true", help="only show what would be done; contacts nothing")
    get.set_defaults(run=_run_data_get, after_interrupt="the same command continues where it stopped")
    report = _add_data_command(actions, "report", "what is in a dataset, and what is wrong with it, as a page and JSON")
    report.set_defaults(run=_run_data_report)
    leaks = _add_data_command(actions, "leaks", "images that a dataset holds twice, or shares with another one")
    leaks.add_argument(
        "--against", metavar="OVERRIDES", help="the other dataset, such as 'data=radiography data.root=PATH'"
    )
    leaks.set_defaults(run=_run_data_leaks)
    audit = _add_data_command(actions, "audit", "how much of the label can be had without the disease")
    audit.add_argument("--bundle", type=Path, metavar="FOLDER", help="a net to audit too, on images it has not seen")
    audit.set_defaults(run=_run_data_audit)


def _add_data_command(actions: "Commands", name: str, description: str) -> argparse.ArgumentParser:
    """A command that looks at a dataset named in the words of train.py."""
    parser = actions.add_parser(name, help=description)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=OVERRIDES_HELP)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"default: data_{name}/<dataset> in the log folder")
    parser.set_defaults(after_interrupt="images decoded so far are kept")
    return parser


def _run_data_get(options: argparse.Namespace) -> int:
    from cxr.data.download import get

    dataset = find_dataset(options.dataset)
    folder = data_dir() if options.out is None else options.out
    for name, value in get.plan_download(dataset, folder).items():
        print(f"{name + ':':<13}{value}", flush=True)
    if not options.dry_run:
        print(f"ready: {get.get_dataset(dataset, folder)}")
    return 0


def _run_data_report(options: argparse.Namespace) -> int:
    from cxr.data_commands import report

    page, findings = report(options.overrides, options.out)
    for finding in findings:
        print(f"{finding['count']:>8}  {finding['title']}")
    print(f"report: {page}")
    return 0


def _run_data_leaks(options: argparse.Namespace) -> int:
    from cxr.data_commands import find_shared

    counts, table = find_shared(options.overrides, options.against, options.out)
    for name, count in counts.items():
        print(f"{count:>8}  {name}")
    print(f"pairs: {table}" if counts else "nothing is shared")
    return 0


def _run_data_audit(options: argparse.Namespace) -> int:
    from cxr.data_commands import audit
    from cxr.evaluation.audit.show import show_audit

    result, path = audit(options.overrides, options.bundle, options.out)
    show_audit(result)
    print(f"audit: {path}")
    return 0


def _add_explain(commands: "Commands") -> None:
    parser = commands.add_parser("explain", help="what the net of a run looks at, and how far that can be believed")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="config values that changed: data.root=PATH")
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
    from cxr.explain_commands import Explanation, explain

    settings = Explanation(options.run_folder, options.part, options.method, options.images, options.each,
                           options.target, options.overrides, options.out)  # fmt: skip
    found, page = explain(settings)
    if found["localisation"] is None:
        print("localisation: not measured, no image has boxes")
    else:
        scores = found["localisation"]["scores"]
        for name, words in (("map", "the maps"), ("others", "others' boxes"), ("centre", "the middle")):
            values = ", ".join(f"{key} {scores[name][key]:.3f}" for key in ("pointing", "iou", "average_precision"))
            print(f"{words + ':':<15}{values}")
    print(f"sanity: {found['sanity']['verdict']}")
    print(f"page: {page}")
    return 0


def _add_sweep(commands: "Commands") -> None:
    actions = _add_group(commands, "sweep", "results of hyperparameter sweeps")
    best = actions.add_parser("best", help="parameters and checkpoint of the best trial")
    best.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the sweep, such as logs/sweeps/NAME")
    best.set_defaults(run=_run_sweep_best)


def _run_sweep_best(options: argparse.Namespace) -> int:
    from cxr.experiments.sweep_records import read_best

    best = read_best(options.folder)
    print(f"trial {best.number} of {best.study}: {best.metric} = {best.value:.4f}")
    for key, value in best.params.items():
        print(f"  {key}={value}")
    print(f"checkpoint: {options.folder / best.checkpoint}")
    for name, value in (best.test or {}).items():
        print(f"  {name} = {value:.4f}")
    return 0


def _add_group(commands: "Commands", name: str, description: str) -> "Commands":
    group = commands.add_parser(name, help=description)
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


if __name__ == "__main__":
    sys.exit(main())
