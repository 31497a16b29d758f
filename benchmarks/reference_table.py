"""Every reference recipe beside what this project recommends, on the same images and split: one run a row.

python benchmarks/reference_table.py --data FOLDER                       everything that FOLDER has the images for
python benchmarks/reference_table.py --data FOLDER --rows d_best a_best  some rows
python benchmarks/reference_table.py --table                             only the table of what is finished

FOLDER holds datasets under the names that `cxr data get` gives them. A row that was stopped goes on, a finished one is
not run again. From random weights, so that nothing is downloaded; the nets too large for a CPU see as many images as
their row says (--full lets them see all).
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from cxr.evaluation.predictions import read_predictions
from cxr.evaluation.statistics.bootstrap import bootstrap_metrics
from cxr.evaluation.statistics.resampling import patient_groups

ROOT = Path(__file__).parents[1]
METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}
SCRATCH = "net.pretrained=false transfer.pretrained_upto=null"
BUDGET = "trainer.max_epochs=1 +trainer.limit_train_batches=64"
SEEDS = "plan=seeds plan.seeds=[0,1,2] report=false"
FOLDS = "plan=cv plan.folds=5 report=false"
AUTOML = "plan=automl plan.include_dnn=true plan.budget_minutes=15"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Of its folder.
        data: What it is trained on, the heading of its lines.
        says: What the reference reports, or what the row is; None of a run that only others start from.
        words: For train.py or, with a plan, run.py; <name> is the folder of another row.
        budget: Words that make it small enough for a CPU; none where it is.
    """

    name: str
    data: str
    says: str | None
    words: str
    budget: str = ""


CHILDREN, THREE = "chest_xray: normal or pneumonia", "chest_xray: normal, bacterial or viral"
COVID, RADIOGRAPHY = "Covid19-dataset, three classes, five folds", "Radiography: COVID or normal"
PHANTOMS, PHANTOMS4 = "phantoms, binary (synthetic: not clinical)", "phantoms, four classes (synthetic: not clinical)"
TWO = "data=radiography data.scheme=2class"

ROWS = (
    Row("d_vgg16", CHILDREN, "VGG16, 0.93 reported", f"experiment=reference_d_vgg16 {SCRATCH}", BUDGET),
    Row("d_mobilenet", CHILDREN, "MobileNet, 0.79 reported", f"experiment=reference_d_mobilenet {SCRATCH}", BUDGET),
    Row("d_best", CHILDREN, "recommended", f"experiment=reference_d_best {SEEDS}"),
    Row("d_best_3class", THREE, "recommended", f"experiment=reference_d_best data.scheme=3class {SEEDS}"),
    Row("a_cnn", COVID, "CNN, 0.97 reported on 66 images", f"experiment=reference_a_cnn {FOLDS}"),
    Row("a_best", COVID, "recommended", f"experiment=reference_a_best {FOLDS}"),
    Row("union", COVID, None,
        "experiment=pretrain_union data.avoid=<a_best> ~data.sources.covid"),
    Row("a_best_pretrained", COVID, "recommended, after pretraining on other films",
        f"experiment=reference_a_best {FOLDS} transfer.init_from=<union> optimizer.lr=0.0003 trainer.max_epochs=20"),
    Row("a_automl", COVID, "AutoML, 0.948 reported", f"experiment=reference_a_automl {AUTOML}"),
    Row("c_resnet50v2", RADIOGRAPHY, "ResNet50V2, 0.89 on three classes",
        f"experiment=reference_c_resnet50v2 {TWO} {SCRATCH}", BUDGET),
    Row("c_coatnet", RADIOGRAPHY, "CoAtNet-0", f"experiment=reference_c_coatnet {TWO} {SCRATCH}", BUDGET),
    *(
        Row(f"c_coatnet_{size}", RADIOGRAPHY, f"CoAtNet-{size}",
            f"experiment=reference_c_coatnet net.architecture=coatnet_{size}_{'224' if size == 4 else 'rw_224'} "
            f"{TWO} {SCRATCH}", BUDGET)
        for size in (1, 2, 3, 4)
    ),
    Row("c_best", RADIOGRAPHY, "recommended", f"experiment=reference_c_best {TWO} {SEEDS}"),
    Row("m_binary", PHANTOMS, "system M's net from random weights",
        "experiment=reference_m_binary data=phantom net.weights=null data.limit=null", BUDGET),
    Row("m_binary_best", PHANTOMS, "recommended, without weights",
        f"experiment=reference_m_binary_best data=phantom net=resnet18 preprocess=unit_128 {SEEDS}"),
    Row("m_4class_best", PHANTOMS4, "recommended, without weights",
        f"experiment=reference_m_4class_best data=phantom net=resnet18 preprocess=unit_128 {SEEDS}"),
)  # fmt: skip
FOLDERS = {CHILDREN: "chest_xray", THREE: "chest_xray", COVID: "Covid19-dataset",
           RADIOGRAPHY: "COVID-19_Radiography_Dataset"}  # fmt: skip


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the datasets")
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "reference_table", help="folder of the runs")
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="default: all")
    parser.add_argument("--full", action="store_true", help="large nets see all images too: for a GPU")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    out = options.out.absolute() / "full" if options.full else options.out.absolute()
    failed: list[str] = []
    wanted = [row for row in ROWS if options.rows is None or row.name in options.rows]
    for row in wanted:
        if not options.table and goes_on(row, out) and has_data(row, options.data):
            failed += [row.name] * (run(row, out, options.data, options.full) != 0)
    out.mkdir(parents=True, exist_ok=True)
    table = "\n".join(tell(wanted, out))
    (out / "table.md").write_text(table + "\n")
    print(table)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def has_data(row: Row, data: Path | None) -> bool:
    """Whether the images of a row are there; phantoms always are."""
    folder = FOLDERS.get(row.data)
    return folder is None or (data is not None and (data / folder).is_dir())


def is_missing(row: Row, out: Path) -> bool:
    """Whether a row has no finished run."""
    return not any((out / row.name / name).exists() for name in ("summary.json", "report.html"))


def recipe_words(row: Row, out: Path) -> list[str]:
    """The words of a row, with the folders of the rows that it names."""
    return row.words.replace("<", f"{out}/").replace(">", "").split()


def goes_on(row: Row, out: Path) -> bool:
    """Whether there is anything to do; an AutoML that was stopped is finished for now, and says itself what is left."""
    return is_missing(row, out) or "plan=automl" in row.words


def run(row: Row, out: Path, data: Path | None, full: bool) -> int:
    """Carry out a row, or what is missing of it; returns the exit status."""
    folder = out / row.name
    words = [*recipe_words(row, out), *([] if full else row.budget.split()), "logger=none", f"hydra.run.dir={folder}"]
    if row.data in FOLDERS:
        words.append(f"paths.data_dir={data}")
    last = folder / "checkpoints" / "last.ckpt"
    if (folder / "plan.yaml").exists():
        words.append(f"plan.folder={folder}")
    elif last.exists():
        words.append(f"ckpt_path={last}")
    script = "run.py" if "plan=" in row.words else "train.py"
    print(f"{row.name}: python {script} {shlex.join(words)}", flush=True)
    return subprocess.run([sys.executable, ROOT / script, *words], check=False).returncode


def tell(rows: list[Row], out: Path) -> Iterator[str]:
    """The lines of a Markdown table of the finished rows."""
    heading = ""
    for row in rows:
        if row.says is None or is_missing(row, out):
            continue
        if row.data != heading:
            heading = row.data
            yield f"\n**{heading}**\n"
            yield f"| recipe | images | {' | '.join(METRICS.values())} |\n|---|---|{'---|' * len(METRICS)}"
        recipe = row.words.split()[0].removeprefix("experiment=")
        for part, cells in measure(out / row.name):
            yield f"| `{recipe}`: {row.says}{tell_budget(out / row.name)} | {part} | {' | '.join(cells)} |"


def tell_budget(folder: Path) -> str:
    """How many batches a run was bounded to, as its own config says; nothing where it saw all."""
    config = folder / "config.yaml"
    batches = yaml.safe_load(config.read_text())["trainer"].get("limit_train_batches") if config.exists() else None
    return "" if batches is None else f"; {batches} batches"


def measure(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(what was measured on, one cell per metric) of a row."""
    searched = (folder / "leaderboard.csv").exists()
    pooled = folder / ("predictions_val.csv" if searched else "predictions_oof.csv")
    if searched or pooled.exists():
        yield "all, out of fold", [with_interval(one) for one in intervals(pooled)]
        return
    seeds = sorted(folder.glob("seed_*"))
    for part in ("val", "test"):
        if seeds:
            runs = [intervals(seed / f"predictions_{part}.csv") for seed in seeds]
            yield f"{part}, {len(seeds)} seeds", [with_spread(list(one)) for one in zip(*runs, strict=True)]
        else:
            yield part, [with_interval(one) for one in intervals(folder / f"predictions_{part}.csv")]


def intervals(path: Path) -> list[tuple[float, float, float]]:
    """Value and ends of the 95% interval of each metric."""
    table, names = read_predictions(path)
    probs = table[[f"prob_{k}" for k in range(len(names))]].to_numpy(dtype=np.float64)
    found = bootstrap_metrics(table["target"].to_numpy(dtype=np.int64), probs, patient_groups(table), names)
    return [(found[name].value, found[name].low, found[name].high) for name in METRICS]


def with_interval(one: tuple[float, float, float]) -> str:
    """A value with its interval."""
    return f"{one[0]:.3f} ({one[1]:.3f} to {one[2]:.3f})"


def with_spread(runs: list[tuple[float, float, float]]) -> str:
    """The mean over seeds with their SD, and the widest ends of their intervals."""
    values, lows, highs = (pd.Series(one) for one in zip(*runs, strict=True))
    return f"{values.mean():.3f} ± {values.std():.3f} ({lows.min():.3f} to {highs.max():.3f})"


if __name__ == "__main__":
    main()
