import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cxr.errors import ConfigError
from cxr.experiments.queue import FinishedRun, QueuedRun, queue_table, read_queue, run_queue

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_queue.py"
QUEUE = """
# two seeds
experiment=demo seed=1   # the first

'run_name=a b' data.fractions=[0.6,0.2,0.2]
"""
ENTRY = """
import os, pathlib, signal, sys
pathlib.Path(sys.argv[1]).open("a").write(f"{sys.argv[2:]}\\n")
if "kill" in sys.argv:
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(3 if "fail" in sys.argv else 0)
"""


def test_a_queue_is_read_as_a_shell_would(tmp_path):
    path = tmp_path / "queue.txt"
    path.write_text(QUEUE)
    assert read_queue(path) == [
        QueuedRun(3, ("experiment=demo", "seed=1")),
        QueuedRun(5, ("run_name=a b", "data.fractions=[0.6,0.2,0.2]")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "seed=1\n'seed=2\n",
            r"line 2 of .*queue.txt cannot be read \(No closing quotation\): 'seed=2; close the quote",
        ),
        ("# nothing\n\n", r"expected at least one run in .*queue.txt, but it has none"),
    ],
)
def test_a_queue_that_cannot_be_read_runs_nothing(tmp_path, text, message):
    path = tmp_path / "queue.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_queue(path)


def test_a_missing_queue_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"a queue is a text file with one run per line, but .*queue.txt is no file"):
        read_queue(tmp_path / "queue.txt")


def test_runs_go_one_after_another_and_survive_a_failing_and_a_killed_one(tmp_path):
    entry, log = tmp_path / "entry.py", tmp_path / "log.txt"
    entry.write_text(ENTRY)
    runs = [QueuedRun(number, (word, "a b")) for number, word in enumerate(["first", "fail", "kill", "last"], start=1)]
    finished = list(run_queue(runs, [sys.executable, str(entry), str(log)]))
    assert [end.exit_code for end in finished] == [0, 3, -signal.SIGKILL, 0]
    assert [end.run for end in finished] == runs
    assert log.read_text().splitlines() == [str([word, "a b"]) for word in ("first", "fail", "kill", "last")]


def test_the_table_shows_every_run_of_the_queue(capsys):
    runs = [QueuedRun(2, ("seed=1",)), QueuedRun(5, ("run_name=a b",))]
    Console(width=80).print(queue_table([FinishedRun(runs[0], 3, 12.34)], runs))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["2", "seed=1", "3", "12.3"] in rows
    assert ["5", "'run_name=a b'", "not started", ""] in rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "code", "told"),
    [("--help\n", 0, "│ --help"), ("nonsense=1\n--help\n", 1, "│ nonsense=1"), ("'open\n", 1, "error: line 1 of")],
)
def test_the_script_runs_train_py_and_fails_if_a_run_does(tmp_path, text, code, told):
    path = tmp_path / "queue.txt"
    path.write_text(text)
    command = [sys.executable, str(SCRIPT), str(path)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == code, ended.stderr
    assert told in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
