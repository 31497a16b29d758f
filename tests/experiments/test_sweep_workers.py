import pytest

from cxr.experiments import sweep_workers
from cxr.experiments.processes import EndedJob
from cxr.experiments.sweep_workers import run_workers


@pytest.mark.parametrize(
    ("launcher", "added"),
    [("basic", {"OMP_NUM_THREADS": "4"}), ("joblib", {"OMP_NUM_THREADS": "4"}), ("submitit_slurm", {})],
)
def test_cores_are_shared_where_the_trials_run_here(monkeypatch, tmp_path, launcher, added):
    def run_jobs(jobs, places, on_start):
        given.extend(places)
        yield from (EndedJob(job, 0, 1.0) for job in jobs)

    given = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(sweep_workers, "run_jobs", run_jobs)
    monkeypatch.setattr(sweep_workers, "available_cores", lambda: 8)
    monkeypatch.setattr(sweep_workers, "visible_gpus", list)
    run_workers(2, launcher, tmp_path, print)
    assert given == [added] * 2
