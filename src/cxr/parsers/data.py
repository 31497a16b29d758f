"""`cxr data`: datasets."""

import argparse
from pathlib import Path

from cxr.data.download.catalogue import DATASETS, data_dir, find_dataset
from cxr.parsers.group import OVERRIDES_HELP, Commands, add_group


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    actions = add_group(commands, "data", "datasets on this machine")
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
    shards = _add_data_command(actions, "shards", "decoded images as files for object storage, see data.shards")
    shards.set_defaults(run=_run_data_shards)


def _add_data_command(actions: Commands, name: str, description: str) -> argparse.ArgumentParser:
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
    from cxr.commands.data import report

    page, found = report(options.overrides, options.out)
    for finding in found["findings"]:
        print(f"{finding['count']:>8}  {finding['title']}")
    if found["split_problem"] is not None:
        print(f"not ready for training: {found['split_problem']}")
    print(f"report: {page}")
    return 0


def _run_data_leaks(options: argparse.Namespace) -> int:
    from cxr.commands.data import find_shared

    counts, table = find_shared(options.overrides, options.against, options.out)
    for name, count in counts.items():
        print(f"{count:>8}  {name}")
    print(f"pairs: {table}" if counts else "nothing is shared")
    return 0


def _run_data_audit(options: argparse.Namespace) -> int:
    from cxr.commands.data import audit
    from cxr.evaluation.audit.show import show_audit

    result, path = audit(options.overrides, options.bundle, options.out)
    show_audit(result)
    print(f"audit: {path}")
    return 0


def _run_data_shards(options: argparse.Namespace) -> int:
    from cxr.commands.shards import write

    shards, images, folder = write(options.overrides, options.out)
    print(f"{images} images in {shards} shards: {folder}")
    print(f"copy the folder to where every machine reads it, and train with data.shards={folder}")
    return 0
