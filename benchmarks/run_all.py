"""All benchmarks of speed in a short form, kept and compared: python benchmarks/run_all.py [--compare].

Each is a process of its own and prints tables. What counts in them are the ratios of this project to what it stands
beside in the same run, since seconds depend on whatever else the machine does. They are kept in
`benchmarks/results/<date>-<machine>.json`, where the machine is its processor and cores, and shown in a table in
docs/performance.md, between two marks.

--compare measures too, but writes nothing: it names each ratio that is more than 10% below the last stored one of this
machine or was not measured, and ends with exit code 1 where there is one.
"""

import argparse
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "performance.md"
START, END = "<!-- table of benchmarks/run_all.py: start -->", "<!-- table of benchmarks/run_all.py: end -->"
TOLERATED = 0.9
"""Of the stored ratio."""


@dataclass(frozen=True)
class Benchmark:
    """A script with the arguments of its short form, and how its tables are read.

    Attributes:
        script: Name of the file.
        arguments: Its short form.
        keys: Columns that name a row.
        ratio: Column of this project's speed by that of what it stands beside, more is better; None where it stands
            beside nothing, and is only stored.
        own: Cell that every row of this project has; None where all rows are.
    """

    script: str
    arguments: str
    keys: tuple[str, ...] = ()
    ratio: str | None = None
    own: str | None = None


BENCHMARKS = (
    Benchmark(
        "training", "--nets custom_cnn --encodings jpeg2000 --rounds 3 --batch 16 --files 4",
        ("net", "beside"), "ratio",
    ),
    Benchmark("ceilings", "--batch 16 --steps 3", ("net",), "of multiply"),
    Benchmark("training_memory", "", ("images",), "ratio"),
    Benchmark("startup", "", ("what",), "ratio"),
    Benchmark("freed_memory", "--batch 16 --turns 3", ("net",), "ratio"),
    Benchmark("channels_last", "--batch 8 --steps 3", ("net",), "ratio"),
    Benchmark(
        "input_pipeline", "--files 8 --warm-images 2000", ("files", "pipeline"), "warm / plain", "this project"
    ),
    Benchmark("shards", "--images 10000", ("step",), "ratio"),
    Benchmark("serving", "--rounds 2 --clients 1 4 --memory-requests 0", ("server", "clients"), "x plain"),
    Benchmark("bootstrap", "--loop-draws 5", ("classes",), "ratio"),
    Benchmark("pruning", "--seeds 0 --trials 6 --epochs 8 --pruners halving", ("seed", "pruner"), "saved"),
    Benchmark("leak_gate", "--studies 60 --copied 10 --images 2000"),
    Benchmark("data_report", "--images 300"),
    Benchmark("samples_table", "--rows 100000"),
)  # fmt: skip


def main() -> None:
    """Measure, then compare or store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", action="store_true", help="with the last stored result; store nothing")
    parser.add_argument("--only", nargs="+", choices=[one.script for one in BENCHMARKS], help="some of them")
    arguments = parser.parse_args()
    if arguments.only is not None and not arguments.compare:
        parser.error("--only goes with --compare: what is stored is whole")
    before = read_last(RESULTS, name_machine()) if arguments.compare else None
    chosen = [one for one in BENCHMARKS if arguments.only is None or one.script in arguments.only]
    result = {**describe(), "benchmarks": {one.script: run(one) for one in chosen}}
    if before is not None:
        slower = find_regressions(ratios_of(before, result["benchmarks"]), ratios_of(result))
        print("\n".join(slower) if slower else "no ratio is more than 10% below the stored one")
        sys.exit(int(bool(slower)))
    store(result, RESULTS)
    PAGE.write_text(put_table(PAGE.read_text(), make_table(result)))


def describe() -> dict[str, Any]:
    """What the numbers hold for: no name of a host is in it."""
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    versions = {name: version(name) for name in ("torch", "pytorch-lightning")}
    return {"date": date.today().isoformat(), "machine": name_machine(), "load": load, "versions": versions}


def name_machine() -> str:
    """The processor and the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    information = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", information.read_text()) if information.exists() else None
    return f"{found[1].strip() if found else platform.machine()}, {cores} cores"


def run(benchmark: Benchmark) -> dict[str, Any]:
    """Carry out one benchmark: its command, its seconds, the rows of its tables and its ratios."""
    command = [f"{benchmark.script}.py", *benchmark.arguments.split()]
    print(f"python benchmarks/{' '.join(command)}", flush=True)
    started = time.perf_counter()
    wide = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run([sys.executable, *command], cwd=HERE, env=wide, stdout=subprocess.PIPE, text=True, check=True)
    seconds = round(time.perf_counter() - started, 1)
    print(done.stdout, flush=True)
    rows = read_tables(done.stdout)
    return {"command": " ".join(command), "seconds": seconds, "rows": rows, "ratios": find_ratios(benchmark, rows)}


def read_tables(printed: str) -> list[dict[str, str]]:
    """The rows of the tables that rich drew, column -> cell."""
    rows: list[dict[str, str]] = []
    names: list[str] = []
    for line in printed.splitlines():
        if line.startswith("┃"):
            names = split_row(line, "┃")
        elif line.startswith("│"):
            rows.append(dict(zip(names, split_row(line, "│"), strict=True)))
    return rows


def split_row(line: str, border: str) -> list[str]:
    """The cells of a drawn row."""
    return [cell.strip() for cell in line.strip(border).split(border)]


def find_ratios(benchmark: Benchmark, rows: list[dict[str, str]]) -> dict[str, float]:
    """Name of a row of this project -> its ratio."""
    return {
        ", ".join(row[key] for key in benchmark.keys): float(row[benchmark.ratio].replace(",", ""))
        for row in rows
        if benchmark.ratio in row and (benchmark.own is None or benchmark.own in row.values())
    }


def ratios_of(result: dict[str, Any], scripts: Iterable[str] | None = None) -> dict[str, float]:
    """Every ratio of a result by the name of its benchmark and row; `scripts`: of these benchmarks alone."""
    return {
        f"{script}: {name}": ratio
        for script, one in result["benchmarks"].items()
        if scripts is None or script in scripts
        for name, ratio in one["ratios"].items()
    }


def find_regressions(before: dict[str, float], now: dict[str, float]) -> list[str]:
    """A line for each ratio that has become more than 10% smaller, or that there is no more."""
    lines = []
    for name, ratio in before.items():
        if math.isnan(now.get(name, math.nan)):
            lines.append(f"{name}: not measured, was {ratio:.2f}")
        elif now[name] < TOLERATED * ratio:
            lines.append(f"{name}: {now[name]:.2f}, was {ratio:.2f} ({now[name] / ratio - 1:+.0%})")
    return lines


def file_name(result: dict[str, Any]) -> str:
    """``<date>-<machine>.json``."""
    machine = re.sub(r"[^a-z0-9]+", "-", result["machine"].lower()).strip("-")
    return f"{result['date']}-{machine}.json"


def store(result: dict[str, Any], folder: Path) -> None:
    """Write a result; one of the same day and machine is replaced."""
    folder.mkdir(exist_ok=True)
    (folder / file_name(result)).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def read_last(folder: Path, machine: str) -> dict[str, Any]:
    """The latest stored result of a machine.

    Raises:
        SystemExit: There is none.
    """
    stored = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    of_machine = [result for result in stored if result["machine"] == machine]
    if not of_machine:
        raise SystemExit(
            f"expected a stored result of {machine} in {folder}, but there is none; run `make bench` first"
        )
    return of_machine[-1]


def make_table(result: dict[str, Any]) -> str:
    """Every ratio as Markdown, with what it holds for."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [f"{result['date']}, {result['machine']}, load average {result['load']} at the start; {versions}.", ""]
    lines += ["| command | row | ratio |", "|---|---|---|"]
    for one in result["benchmarks"].values():
        lines += [f"| `{one['command']}` | {name} | {ratio:g} |" for name, ratio in one["ratios"].items()]
    return "\n".join(lines)


def put_table(page: str, table: str) -> str:
    """The page with this table between its two marks.

    Raises:
        ValueError: The marks are not there.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"expected {START} and then {END} in the page, but they are not there; put them where it goes")
    return f"{before}{START}\n\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    main()
