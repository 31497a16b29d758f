"""Freed memory stays with the process."""

import subprocess
import sys

from cxr.memory import keep_freed_memory

PROGRAM = """
import sys
import numpy as np
import psutil
from cxr.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
before = psutil.Process().memory_info().rss
large = np.ones(200_000_000, dtype=np.uint8)
del large
print((psutil.Process().memory_info().rss - before) // 1_000_000)
"""


def megabytes_left(how):
    return int(subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True).stdout)


def test_freed_memory_is_kept_for_the_next_allocation():
    assert megabytes_left("give back") < 20
    assert megabytes_left("keep") > 180


def test_without_glibc_nothing_happens(monkeypatch):
    def find_none(name):
        raise OSError(name)

    monkeypatch.setattr("cxr.memory.ctypes.CDLL", find_none)
    keep_freed_memory()
