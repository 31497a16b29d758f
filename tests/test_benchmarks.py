"""Benchmarks run and print a table; what they measure is no matter of tests."""

import json
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from cxr.data.leaks.films import LINKED, NEAR
from cxr.entry import prepare_environment
from cxr.evaluation.predictions import write_predictions

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_channels_last_prints_both_rates_and_their_ratio(monkeypatch, capsys):
    command = "channels_last.py --steps 1 --size 64 --batch 2 --nets custom_cnn"
    monkeypatch.setattr(sys, "argv", command.split())
    monkeypatch.setenv("COLUMNS", "120")
    runpy.run_path(str(BENCHMARKS / "channels_last.py"), run_name="__main__")

    printed = capsys.readouterr().out
    assert "batch 2, 64 px, 1 steps of each" in printed
    row = next(line for line in printed.splitlines() if "custom_cnn" in line)
    contiguous, channels_last, ratio = (float(number) for number in re.findall(r"\d+\.\d+", row))
    assert ratio == pytest.approx(channels_last / contiguous, rel=0.1)


@pytest.mark.slow
def test_ceilings_count_what_a_step_does(monkeypatch, capsys):
    monkeypatch.setattr("cxr.memory.keep_freed_memory", lambda: None)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    ceilings = runpy.run_path(str(BENCHMARKS / "ceilings.py"))
    weight, image = torch.rand(8, 4, requires_grad=True), torch.rand(2, 4)
    operations, moved = ceilings["count"](lambda: image @ weight.t())
    assert operations == 2 * 2 * 4 * 8
    assert moved == 4 * (2 * 4 + 4 * 8 + 2 * 8), "the transposed weight is a view"

    monkeypatch.setattr(sys, "argv", ["", "--steps", "1", "--size", "64", "--batch", "2", "--nets", "custom_cnn"])
    monkeypatch.setenv("COLUMNS", "120")
    ceilings["main"]()
    assert re.search(r"│ custom_cnn +│ \d+\.\d", capsys.readouterr().out)


def test_shards_are_put_beside_a_copy_of_them(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["shards.py", "--images", "40", "--size", "16"])
    runpy.run_path(str(BENCHMARKS / "shards.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"│ cp .*│ 1\.00 +│", printed)
    assert "read an epoch from the cache" in printed


@pytest.mark.slow
def test_leak_gate_prints_what_each_method_finds(monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["leak_gate.py", "--studies", "30", "--copied", "4", "--size", "128", "--images", "400"]
    )
    monkeypatch.setenv("COLUMNS", "160")
    runpy.run_path(str(BENCHMARKS / "leak_gate.py"), run_name="__main__")

    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if "the gate" in line]
    assert [float(re.findall(r"\d\.\d+", row)[0]) for row in rows] == [NEAR, LINKED]
    assert all(re.findall(r"\d\.\d+", row)[1] == "1.00" for row in rows)  # re-encoded films
    times = [line.split()[1::2] for line in printed.splitlines() if line.startswith(("│ 200 ", "│ 400 "))]
    assert [row[0] for row in times] == ["200", "400"]
    assert all(float(whole) >= float(first) for _, _, first, whole, *_ in times)


@pytest.mark.verify
def test_input_pipeline_prints_every_way_beside_the_plain_one(capfd):
    command = [sys.executable, str(BENCHMARKS / "input_pipeline.py"), "--files", "2", "--warm-images", "64"]
    subprocess.run([*command, "--batch", "8"], check=True, timeout=600)
    printed = capfd.readouterr().out
    for name in ("this project", "torchxrayvision", "MONAI", "plain"):
        assert len(re.findall(rf"│ {name} ", printed)) == 2, printed
    assert re.search(r"custom CNN at 224 px: \d+\.\d ms a step, of which \d+\.\d\d ms", printed)
    assert re.search(r"decoding jpeg2000: \d+ ms a file, \d+\.\d% of them in the codec", printed)


@pytest.mark.slow
def test_samples_table_prints_every_step(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["samples_table.py", "--rows", "3000"])
    monkeypatch.setenv("COLUMNS", "120")
    runpy.run_path(str(BENCHMARKS / "samples_table.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert all(step in printed for step in ("read the CSV", "gate", "groups", "split", "leak check", "leaking split"))


@pytest.mark.slow
def test_data_report_is_timed_with_and_without_caches(capfd):
    subprocess.run([sys.executable, str(BENCHMARKS / "data_report.py"), "--images", "40"], check=True, timeout=600)
    found = re.findall(r"│ (nothing cached|again) +│ +\d+\.\d +│", capfd.readouterr().out)
    assert found == ["nothing cached", "again"]


def test_bootstrap_prints_both_times_and_their_ratio(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "--rows", "100", "--loop-draws", "2"])
    monkeypatch.setenv("COLUMNS", "120")
    runpy.run_path(str(BENCHMARKS / "bootstrap.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "100 predictions, 1000 draws, all metrics" in printed
    rows = [re.findall(r"\d+\.?\d*", line) for line in printed.splitlines() if re.match(r"│ [24] ", line)]
    assert [row[0] for row in rows] == ["2", "4"]
    assert all(len(row) == 4 for row in rows)


TABLE = runpy.run_path(str(BENCHMARKS / "reference_table.py"))


@cache
def compose_row(row):
    prepare_environment()
    words = [*TABLE["recipe_words"](row, Path("out")), *row.budget.split(), "paths.output_dir=x", "run_name=x"]
    with initialize_config_dir(str(BENCHMARKS.parent / "configs")):
        return compose("run", words)


@pytest.mark.parametrize("row", TABLE["ROWS"], ids=lambda row: row.name)
def test_every_row_of_the_reference_table_composes(row):
    config = compose_row(row)
    assert config.net.get("pretrained", False) is False
    assert config.net.get("weights") is None
    assert (config.get("plan") is not None) == ("plan=" in row.words)


def on_what(row):
    """What decides which images a row is trained on and how they are divided."""
    config = compose_row(row)
    data = {key: value for key, value in config.data.items() if key != "batch_size"}
    folds = config.plan.folds if "plan" in config and "folds" in config.plan else None
    return data, config.sampler.balance_all, config.seed, folds


@pytest.mark.parametrize("heading", sorted({row.data for row in TABLE["ROWS"]}))
def test_rows_of_one_heading_are_on_the_same_images_and_split(heading):
    first, *others = [row for row in TABLE["ROWS"] if row.data == heading and row.says is not None]
    assert others
    for row in others:
        assert on_what(row) == on_what(first), row.name


@pytest.mark.parametrize(
    ("there", "absent"),
    [
        (["Covid19-dataset"], ["chest_xray", "COVID-19_Radiography_Dataset"]),
        (["Covid19-dataset", "chest_xray"], ["COVID-19_Radiography_Dataset"]),
        (["chest_xray", "COVID-19_Radiography_Dataset"], ["Covid19-dataset"]),
        (["Covid19-dataset", "chest_xray", "COVID-19_Radiography_Dataset"], []),
    ],
    ids=lambda folders: " ".join(folders) if folders else "none",
)
def test_a_row_is_left_out_for_want_of_any_of_its_datasets(there, absent, tmp_path, monkeypatch, capsys):
    for name in there:
        (tmp_path / "data" / name).mkdir(parents=True)
    ran = []

    def note(command, check):
        ran.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", note)
    words = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--rows", "union", "a_best_pretrained"]
    monkeypatch.setattr(sys, "argv", ["reference_table.py", *words])
    TABLE["main"]()
    told = re.findall(r"^(\w+): left out, for want of (.+) in --data$", capsys.readouterr().out, re.M)
    assert [name for name, _ in told] == (["union", "a_best_pretrained"] if absent else [])
    assert all(set(folders.split(", ")) == set(absent) for _, folders in told)
    assert len(ran) == (0 if absent else 2)


def test_phantoms_need_no_folder(tmp_path):
    row = next(row for row in TABLE["ROWS"] if row.name == "m_4class")
    assert TABLE["absent_data"](row, None, tmp_path) == []


@pytest.mark.parametrize(
    ("mode", "bound", "size", "epochs", "told"),
    [
        ("none", 64, 16, 1, "; saw 50 images in 1 epoch"),  # all, though more batches were allowed
        ("none", 64, 7, 1, "; saw 49 images in 1 epoch"),  # a last batch of one is left out
        ("oversample", 64, 16, 1, "; saw 80 images in 1 epoch"),
        ("downsample", 2, 8, 3, "; saw 48 images in 3 epochs"),
        ("none", None, 16, 1, ""),
    ],
)
def test_the_budget_of_a_row_is_what_its_run_saw(mode, bound, size, epochs, told, tmp_path):
    trainer = {"max_epochs": epochs} | ({} if bound is None else {"limit_train_batches": bound})
    config = {"seed": 0, "sampler": {"mode": mode}, "data": {"batch_size": size}, "trainer": trainer}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "data_report.json").write_text(json.dumps({"images": {"train": {"normal": 10, "covid": 40}}}))
    (tmp_path / "history.csv").write_text("epoch\n" + "".join(f"{epoch}\n" for epoch in range(epochs)))
    assert TABLE["tell_budget"](tmp_path) == told


@pytest.mark.slow
def test_an_automl_folder_has_no_bound(automl_folder):
    assert (automl_folder / "config.yaml").exists()
    assert TABLE["tell_budget"](automl_folder) == ""


def test_the_reference_table_tells_what_is_finished(tmp_path, monkeypatch, capsys):
    rows = [row.name for row in TABLE["ROWS"]]
    folder = tmp_path / "c_coatnet"
    folder.mkdir()
    (folder / "report.html").write_text("")
    table = pd.DataFrame({"sample_id": [f"s{i}" for i in range(40)], "patient_id": None, "study_id": None, "run": "r",
                          "fold": None, "split": "val", "target": [0, 1] * 20, "prob_0": [0.8, 0.3] * 19 + [0.4, 0.6],
                          "prob_1": [0.2, 0.7] * 19 + [0.6, 0.4]})  # fmt: skip
    table = table.assign(logit_0=0.0, logit_1=np.log(table["prob_1"] / table["prob_0"]))
    for part in ("val", "test"):
        write_predictions(table, ["normal", "covid"], folder / f"predictions_{part}.csv")
    monkeypatch.setattr(sys, "argv", ["reference_table.py", "--table", "--out", str(tmp_path), "--rows", *rows])
    TABLE["main"]()
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "**Radiography: COVID or normal**"
    assert len([line for line in lines if "reference_c_coatnet" in line]) == 2
    assert "| 0.950 (" in lines[-1]
    assert (tmp_path / "table.md").read_text().strip() == "\n".join(lines)


@pytest.mark.slow
def test_training_is_put_beside_every_other_way(capfd):
    command = [sys.executable, str(BENCHMARKS / "training.py"), "--nets", "custom_cnn", "--batch", "4"]
    subprocess.run([*command, "--rounds", "1", "--files", "2", "--encodings", "png"], check=True, timeout=600)
    rows = [line for line in capfd.readouterr().out.splitlines() if line.startswith("│ custom_cnn")]
    assert [line.split("│")[2].strip() for line in rows] == ["bare loop", "files: png"]
    for ours, other, ratio in (re.findall(r" (\d+\.\d+) ", line)[:3] for line in rows):
        assert float(ratio) == pytest.approx(float(ours) / float(other), rel=0.05, abs=0.01)


@pytest.mark.slow
def test_startup_is_told_of_training_and_of_predicting(capfd):
    command = [sys.executable, str(BENCHMARKS / "startup.py"), "--times", "1", "--trials", "0", "--net", "custom_cnn"]
    subprocess.run(command, check=True, timeout=600)
    lines = [line.split("│")[1:-1] for line in capfd.readouterr().out.splitlines() if line.startswith("│")]
    found = {name.strip(): [float(cell) for cell in cells] for name, *cells in lines}
    assert list(found) == ["importing Lightning", "first step", "predicting one image"]
    for seconds, _, ratio in found.values():
        assert ratio == pytest.approx(found["importing Lightning"][0] / seconds, rel=0.05, abs=0.01)


@pytest.mark.slow
def test_memory_of_training_is_told(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["training_memory.py", "--images", "200", "--steps", "2", "--batch", "4"])
    monkeypatch.setattr("cxr.memory.keep_freed_memory", lambda: None)
    runpy.run_path(str(BENCHMARKS / "training_memory.py"), run_name="__main__")
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│ 200 "))
    assert float(row.split("│")[3]) > 0


ASKED_IN_A_THREAD = """
import threading, time
from serving import NetSeconds

def compute(images):
    end = time.thread_time() + 0.2
    while time.thread_time() < end:
        pass

def work():
    compute("preprocessing")
    net.ask("images")

net = type("Net", (), {"ask": staticmethod(compute)})
seconds = NetSeconds()
seconds.watch(net)
before = seconds.total()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(seconds.total() - before)
"""


def test_serving_tells_what_a_net_computes_from_all_else():
    """Both are computed by one thread, which is not the first of the process and has ended."""
    command = [sys.executable, "-c", ASKED_IN_A_THREAD]
    done = subprocess.run(command, cwd=BENCHMARKS, check=True, capture_output=True, text=True, timeout=120)
    assert 0.2 <= float(done.stdout) < 0.35
