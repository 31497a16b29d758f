"""Every reference recipe beside what this project recommends, on the same images and split: one run a row.

python benchmarks/reference_table.py --data FOLDER                       everything that FOLDER has the images for
python benchmarks/reference_table.py --data FOLDER --rows d_best a_best  some rows
python benchmarks/reference_table.py --table                             only the table of what is finished

FOLDER holds datasets under the names that `cxr data get` gives them. A row that was stopped goes on, a finished one is
not run again, and one whose images are not there is told and left out. From random weights, so that nothing is
downloaded; the nets too large for a CPU see as many images as their row says (--full lets them see all).
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from cxr.data.sampling import epoch_order
from cxr.evaluation.predictions import read_predictions
from cxr.evaluation.statistics.bootstrap import bootstrap_metrics
from cxr.evaluation.statistics.resampling import patient_groups

ROOT = Path(__file__).parents[1]
METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}
SCRATCH = "net.pretrained=false transfer.pretrained_upto=null"
BUDGET = "trainer.max_epochs=1 +trainer.limit_train_batches=64"
SEEDS = "plan=seeds plan.seeds=[0,1,2] report=false"
FOLDS = "plan=cv plan.folds=5 report=false"
AUTOML = "plan=automl plan.folds=5 plan.budget_minutes=15"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Of its folder.
        data: What it is trained on, the heading of its lines: all lines of one are on the same images and split.
        says: What the reference reports, or what the row is; None of a run that only others start from.
        words: For train.py or, with a plan, run.py; <name> is the folder of another row.
        budget: Words that make it small enough for a CPU; none where it is.
        reads: Folders of the datasets that it takes beside that of its heading.
    """

    name: str
    data: str
    says: str | None
    words: str
    budget: str = ""
    reads: tuple[str, ...] = ()


CHILDREN, THREE = "chest_xray: normal or pneumonia", "chest_xray: normal, bacterial or viral"
COVID, RADIOGRAPHY = "Covid19-dataset, three classes, five folds", "Radiography: COVID or normal"
PHANTOMS, PHANTOMS4 = "phantoms, binary (synthetic: not clinical)", "phantoms, four classes (synthetic: not clinical)"
TWO = "data=radiography data.scheme=2class"
DRAWN = "data=phantom data.limit=null data.view_filter=frontal data.fractions=[0.7,0.1,0.2]"
SMALL = "net=resnet18 preprocess=unit_128"

ROWS = (
    Row("d_vgg16", CHILDREN, "VGG16, 0.93 reported", f"experiment=reference_d_vgg16 {SCRATCH}", BUDGET),
    Row("d_mobilenet", CHILDREN, "MobileNet, 0.79 reported", f"experiment=reference_d_mobilenet {SCRATCH}", BUDGET),
    Row("d_best", CHILDREN, "recommended", f"experiment=reference_d_best {SEEDS}"),
    Row("d_mobilenet_3class", THREE, "MobileNet, as for two classes",
        f"experiment=reference_d_mobilenet data.scheme=3class {SCRATCH}", BUDGET),
    Row("d_best_3class", THREE, "recommended", f"experiment=reference_d_best data.scheme=3class {SEEDS}"),
    Row("a_cnn", COVID, "CNN, 0.97 reported on 66 images", f"experiment=reference_a_cnn {FOLDS}"),
    Row("a_best", COVID, "recommended", f"experiment=reference_a_best {FOLDS}"),
    Row("union", COVID, None,
        "experiment=pretrain_union data.avoid=<a_best> ~data.sources.covid",
        reads=("chest_xray", "COVID-19_Radiography_Dataset")),
    Row("a_best_pretrained", COVID, "recommended, after pretraining on other films",
        f"experiment=reference_a_best {FOLDS} transfer.init_from=<union> optimizer.lr=0.0003 trainer.max_epochs=20"),
    Row("a_automl", COVID, "AutoML on flattened pixels, 0.948 reported",
        f"experiment=reference_a_automl {AUTOML} plan.featurize=false"),
    Row("a_automl_best", COVID, "recommended: on descriptors, with small CNNs",
        f"experiment=reference_a_automl {AUTOML} plan.include_dnn=true"),
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
    Row("m_binary", PHANTOMS, "system M's net from random weights, balanced in training only",
        f"experiment=reference_m_binary net.weights=null sampler=downsample {DRAWN}", BUDGET),
    Row("m_binary_best", PHANTOMS, "recommended, without weights",
        f"experiment=reference_m_binary_best {DRAWN} {SMALL} {SEEDS}"),
    Row("m_4class", PHANTOMS4, "system M's net from random weights",
        f"experiment=reference_m_4class net.weights=null {DRAWN}", BUDGET),
    Row("m_4class_best", PHANTOMS4, "recommended, without weights",
        f"experiment=reference_m_4class_best {DRAWN} {SMALL} {SEEDS}"),
)  # fmt: skip
MEASURED_ON = {"val": "val, which chose epoch and calibration", "test": "test"}
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
    for row in [] if options.table else wanted:
        absent = absent_data(row, options.data, out) if goes_on(row, out) else []
        if absent:
            print(f"{row.name}: left out, for want of {', '.join(absent)} in --data", flush=True)
        elif goes_on(row, out):
            failed += [row.name] * (run(row, out, options.data, options.full) != 0)
    out.mkdir(parents=True, exist_ok=True)
    table = "\n".join(tell(wanted, out))
    (out / "table.md").write_text(table + "\n")
    print(table)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def absent_data(row: Row, data: Path | None, out: Path) -> list[str]:
    """The datasets that are not there of those that a row, or an unfinished one that it starts from, is made of."""
    folders = [FOLDERS[row.data], *row.reads] if row.data in FOLDERS else [*row.reads]
    absent = [folder for folder in folders if data is None or not (data / folder).is_dir()]
    for other in (one for one in ROWS if f"<{one.name}>" in row.words and is_missing(one, out)):
        absent += absent_data(other, data, out)
    return list(dict.fromkeys(absent))


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
    """How many images a run saw whose batches were bounded, as its own records say; nothing where it saw all."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text()) if path.exists() else {}
    bound = config.get("trainer", {}).get("limit_train_batches")
    if bound is None:
        return ""
    classes = json.loads((folder / "data_report.json").read_text())["images"]["train"]
    labels = np.repeat(np.arange(len(classes)), list(classes.values()))
    drawn = len(epoch_order(labels, config["sampler"]["mode"], config["seed"], epoch=0))
    size = config["data"]["batch_size"]
    drawn -= drawn % size == 1  # a last batch of a single image is left out
    epochs = len(pd.read_csv(folder / "history.csv"))
    seen = epochs * min(drawn, bound * size)
    return f"; saw {seen:,} images in {epochs} epoch{'s' * (epochs > 1)}"


def measure(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(what was measured on, one cell per metric) of a row."""
    searched = (folder / "leaderboard.csv").exists()
    pooled = folder / ("predictions_val.csv" if searched else "predictions_oof.csv")
    if searched or pooled.exists():
        told = "all, out of fold" + ", which search and calibration saw" * searched
        yield told, [with_interval(one) for one in intervals(pooled)]
        return
    seeds = sorted(folder.glob("seed_*"))
    for part, told in MEASURED_ON.items():
        if seeds:
            runs = [intervals(seed / f"predictions_{part}.csv") for seed in seeds]
            yield f"{told}; {len(seeds)} seeds", [with_spread(list(one)) for one in zip(*runs, strict=True)]
        else:
            yield told, [with_interval(one) for one in intervals(folder / f"predictions_{part}.csv")]


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
