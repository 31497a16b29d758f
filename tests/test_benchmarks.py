"""Benchmarks run and print a table; what they measure is no matter of tests."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from cxr.data.leaks.similar import LINKED, NEAR

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
    assert [line.split()[1] for line in printed.splitlines() if line.startswith(("│ 200 ", "│ 400 "))] == ["200", "400"]
