"""The command `cxr`: for people with images. Each sub-command is a parser here and a function elsewhere.

Importing this module, and `cxr --help`, import neither torch nor any dataset reader: handlers import what they need.
"""

import argparse
import errno
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import load_dotenv

from cxr import __version__
from cxr.data.download.catalogue import DATASETS, data_dir, find_dataset
from cxr.errors import CxrError

OVERRIDES_HELP = "as for train.py, such as data=chest_xray data.root=PATH; a recipe's data.limit does not count"

ENGINES = ("onnx", "int8", "torch")
SALIENCY_METHODS = ("gradcam", "gradcam++", "occlusion", "integrated_gradients")

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    Commands = _SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one `cxr` command.

    Args:
        arguments: Words after `cxr`; None takes them from the command line.

    Returns:
        0 on success, 1 (of predict 2) after an error told in one sentence on stderr, 130 after Ctrl-C.
    """
    load_dotenv(Path.cwd() / ".env")
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parse(make_parser(), words)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return int(options.run(options))
    except CxrError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(options.exit_after_error)
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


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The options, and the line as `command`; overrides may stand before and after options, which argparse refuses."""
    options, rest = parser.parse_known_args(words)
    unknown = [word for word in rest if word.startswith("-") or "overrides" not in options]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    options.command = shlex.join(["cxr", *words])
    return options


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """What `warnings.showwarning` is set to: the sentence, as the log tells it, without a line of code."""
    logging.getLogger("cxr").warning("%s", message)


def make_parser() -> argparse.ArgumentParser:
    """The parser of `cxr` with all sub-commands; parsed options carry the handler as `run`."""
    parser = argparse.ArgumentParser(prog="cxr", description="Chest X-ray classification whose worth is shown.")
    parser.add_argument("--version", action="version", version=f"cxr {__version__}")
    parser.set_defaults(after_interrupt="nothing was left half done", exit_after_error=1)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_doctor,
        _add_data,
        _add_evaluate,
        _add_compare,
        _add_explain,
        _add_predict,
        _add_ensemble,
        _add_stress,
        _add_export,
        _add_sweep,
        _add_reproduce,
        _add_serve,
    ):
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
    shards = _add_data_command(actions, "shards", "decoded images as files for object storage, see data.shards")
    shards.set_defaults(run=_run_data_shards)


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


def _add_evaluate(commands: "Commands") -> None:
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


def _add_compare(commands: "Commands") -> None:
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


def _add_predict(commands: "Commands") -> None:
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


def _add_ensemble(commands: "Commands") -> None:
    parser = commands.add_parser("ensemble", help="several runs as one model, which is judged like a run")
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="RUN", help="run folders, or folders of plan=seeds or plan=cv"
    )
    parser.add_argument(
        "--rule", choices=("soft", "majority", "stack"), default="soft",
        help="mean of probabilities (default), most votes, or a regression learnt from the folds of plan=cv",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="A,B", help="of a soft vote, or 'fit' to choose them on validation (default: equal)"
    )
    parser.add_argument("--snapshots", action="store_true", help="of a run: its kept checkpoints as members")
    parser.add_argument("--test", action="store_true", help="of plan=cv: open the test part that is in no fold")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: ensembles/<rule>_<time> in the log folder")
    parser.set_defaults(run=_run_ensemble)


def _run_ensemble(options: argparse.Namespace) -> int:
    from cxr.entry import prepare_environment

    prepare_environment()
    from cxr.commands.ensemble import make_ensemble

    name = f"{options.rule}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    default = Path(os.environ.get("CXR_LOG_DIR", "logs")) / "ensembles" / name
    out = default if options.out is None else options.out
    made, page = make_ensemble(options.sources, options.rule, options.weights, options.snapshots, options.test, out)
    weights = made["settings"].get("weights", [])
    for index, member in enumerate(made["members"]):
        print(f"member: {member}" + (f", weight {weights[index]:g}" if weights else ""))
    for name, value in made["metrics"].items():
        if name.endswith(("/auroc", "/accuracy")) and "_study" not in name:
            print(f"{name}: {value:.4f}")
    for note in made["notes"]:
        print(f"note: {note}")
    print(f"report: {page}")
    return 0


def _add_stress(commands: "Commands") -> None:
    parser = commands.add_parser("stress", help="what changes of brightness, contrast, scale and the like cost a run")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="config values that changed: data.root=PATH")
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


def _add_export(commands: "Commands") -> None:
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


def _add_reproduce(commands: "Commands") -> None:
    parser = commands.add_parser("reproduce", help="train a run again from what it stored: are the numbers the same")
    parser.add_argument("folder", type=Path, metavar="RUN", help="a finished run, such as logs/runs/NAME/TIME")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="the new run folder (default: beside the old one)")
    parser.set_defaults(run=_run_reproduce, after_interrupt="the new run folder can be deleted")


def _run_reproduce(options: argparse.Namespace) -> int:
    from cxr.entry import prepare_environment

    prepare_environment()
    from cxr.experiments.reproduce import reproduce

    result = reproduce(options.folder, options.out)
    print(result.to_text())
    return 0 if result.is_same else 1


def _add_serve(commands: "Commands") -> None:
    parser = commands.add_parser("serve", help="predictions over HTTP, and a page in the browser (Linux)")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="a bundle, or a run folder with one")
    parser.add_argument("--demo", action="store_true", help="serve the newest model of make demo")
    parser.add_argument("--engine", choices=ENGINES, help="what runs the nets (default: the fastest in the bundle)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--workers", type=int, default=1, help="processes that each hold the model (default: 1)")
    parser.add_argument("--decoders", type=int, metavar="N", help="processes of each that decode (default: all cores)")
    parser.add_argument(
        "--keys", type=Path, metavar="FILE", help="of the clients' keys (default: serve_keys.json in the log folder)"
    )
    parser.add_argument("--new-key", action="store_true", help="make a key, show it and end; the newest two are valid")
    parser.add_argument("--without-keys", action="store_true", help="let everybody ask who reaches the address")
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="of a site whose pages may ask; may be repeated"
    )
    parser.add_argument(
        "--image-host", action="append", default=[], metavar="HOST",
        help="from which images are fetched by their address; may be repeated",
    )  # fmt: skip
    parser.add_argument("--metrics-open", action="store_true", help="let everybody read /metrics")
    parser.add_argument("--max-mb", type=int, default=64, metavar="N", help="of a request (default: 64)")
    parser.add_argument("--max-files", type=int, default=64, metavar="N", help="images in a request (default: 64)")
    parser.add_argument("--queue", type=int, default=256, metavar="N", help="images that may wait (default: 256)")
    parser.add_argument("--seconds", type=int, default=30, metavar="N", help="that a request may take (default: 30)")
    parser.set_defaults(run=_run_serve, after_interrupt="what was asked before is answered")


def _run_serve(options: argparse.Namespace) -> int:
    from cxr.commands.serve import choose_keys, choose_settings, make_new_key

    log_folder = Path(os.environ.get("CXR_LOG_DIR", "logs"))
    if options.new_key:
        print(f"new key, shown only now: {make_new_key(options, log_folder)}")
        return 0
    settings = choose_settings(options, log_folder)
    from cxr.serving.run import check, serve

    check(settings)
    key = choose_keys(settings)
    if key is not None:
        print(f"new key, shown only now: {key}", flush=True)
    serve(settings, tell=lambda address: print(f"serving {settings.bundle} at {address}", flush=True))
    return 0


def _add_group(commands: "Commands", name: str, description: str) -> "Commands":
    group = commands.add_parser(name, help=description)
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


if __name__ == "__main__":
    sys.exit(main())
