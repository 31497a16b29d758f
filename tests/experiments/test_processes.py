import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from cxr.errors import TrainingError
from cxr.experiments import processes
from cxr.experiments.processes import Job, available_cores, run_jobs, share_machine

CHILD = (sys.executable, "-m", "cxr.experiments.child")
SCRIPT = """
import os, pathlib, sys, time
print("begins", os.environ.get("PLACE"), repr(sys.stdin.read()), flush=True)
if sys.argv[1] == "fail":
    sys.exit("error: no")
if sys.argv[1] == "stubborn":
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            print("not yet", flush=True)
if sys.argv[1] == "hang":
    time.sleep(60)
print("ends", __name__, sys.argv, sys.path[0], flush=True)
"""
STARTER = """
import pathlib, sys
from cxr.experiments.processes import Job, run_jobs
job = Job("hangs", tuple(sys.argv[2:]), pathlib.Path(sys.argv[1]))
list(run_jobs([job], [{}], lambda job: None))
"""


@pytest.fixture
def make_job(tmp_path):
    """make_job(word): a job of the script above."""
    script = tmp_path / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)

    def made(word, name=None):
        named = word if name is None else name
        return Job(named, (*CHILD, str(script), word), tmp_path / "logs" / f"{named}.log")

    return made


def wait_for_text(path, text):
    deadline = time.monotonic() + 60
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, f"no {text!r} in {path}"
        time.sleep(0.05)


def test_a_failing_job_stops_none_and_every_log_is_its_own(make_job, tmp_path):
    jobs = [make_job("fail"), make_job("end", "first"), make_job("end", "second")]
    started = []
    ended = list(run_jobs(jobs, [{"PLACE": "0"}, {"PLACE": "1"}], started.append))
    assert started == jobs
    assert {one.job.name: one.exit_code for one in ended} == {"fail": 1, "first": 0, "second": 0}
    assert (tmp_path / "logs" / "fail.log").read_text() == "begins 0 ''\nerror: no\n"
    script = str(tmp_path / "scripts" / "script.py")
    told = (tmp_path / "logs" / "first.log").read_text().splitlines()
    assert told == ["begins 1 ''", f"ends __main__ {[script, 'end']} {tmp_path / 'scripts'}"]


def test_jobs_wait_for_a_place(make_job):
    started = []
    with closing(run_jobs([make_job("end", str(n)) for n in range(3)], [{}], started.append)) as ended:
        for number, _ in enumerate(ended, start=1):
            assert len(started) == number


def test_closing_the_iterator_stops_what_runs(make_job, tmp_path):
    jobs = run_jobs([make_job("fail"), make_job("hang")], [{}, {}], lambda job: None)
    next(jobs)
    log = tmp_path / "logs" / "hang.log"
    wait_for_text(log, "begins")
    jobs.close()
    assert "KeyboardInterrupt" in log.read_text()
    assert "ends" not in log.read_text()


def test_what_does_not_stop_is_killed(make_job, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "SECONDS_TO_STOP", 0.5)
    jobs = run_jobs([make_job("fail"), make_job("stubborn")], [{}, {}], lambda job: None)
    next(jobs)
    log = tmp_path / "logs" / "stubborn.log"
    wait_for_text(log, "begins")
    jobs.close()
    wait_for_text(log, "not yet")


def test_a_job_ends_with_the_process_that_started_it(make_job, tmp_path):
    job = make_job("hang")
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(job.log), *job.command])
    wait_for_text(job.log, "begins")
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    wait_for_text(job.log, "KeyboardInterrupt")


def test_a_job_that_outlives_its_starter_is_not_started_twice(make_job, monkeypatch):
    monkeypatch.setattr(processes, "SECONDS_TO_STOP", 0.1)
    job = make_job("end")
    job.log.parent.mkdir()
    with job.log.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="end is still running from an earlier command that was killed; end it"):
            list(run_jobs([job], [{}], lambda job: None))
    assert [one.exit_code for one in run_jobs([job], [{}], lambda job: None)] == [0]


def test_a_running_job_keeps_its_log(make_job):
    job = make_job("hang")
    jobs = run_jobs([make_job("fail"), job], [{}, {}], lambda job: None)
    next(jobs)
    with job.log.open("ab") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    jobs.close()
    with job.log.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("jobs", "gpus", "environment", "expected"),
    [
        (1, ["0", "1"], {}, [{}]),
        (2, [], {}, [{"OMP_NUM_THREADS": "4"}] * 2),
        (3, [], {"OMP_NUM_THREADS": "1"}, [{}] * 3),
        (20, [], {}, [{"OMP_NUM_THREADS": "1"}] * 20),
        (3, ["a", "b"], {"OMP_NUM_THREADS": "1"}, [{"CUDA_VISIBLE_DEVICES": name} for name in "aba"]),
        (2, [*"abcde"], {"OMP_NUM_THREADS": "1"}, [{"CUDA_VISIBLE_DEVICES": names} for names in ("a,b", "c,d,e")]),
    ],
    ids=["one place has all", "cores", "the user's threads", "few cores", "GPUs in turn", "GPUs in groups"],
)
def test_places_share_the_machine(jobs, gpus, environment, expected):
    assert share_machine(jobs, gpus, cores=8, environment=environment) == expected


def test_there_is_a_core():
    assert 1 <= available_cores() <= os.cpu_count()
