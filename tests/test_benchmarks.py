"""Benchmarks run and print a table; what they measure is no matter of tests."""

import re
import runpy
import sys
from pathlib import Path

import pytest

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
