"""The tests' own run.py, in this process and as a file, and a study in memory."""

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

import cxr.training
from cxr.experiments import sweeper

STUB = Path(__file__).with_name("sweep_stub.py")
spec = importlib.util.spec_from_file_location("sweep_stub", STUB)
stub = importlib.util.module_from_spec(spec)
sys.modules["sweep_stub"] = stub
spec.loader.exec_module(stub)


class App:
    """``python run.py -m hparams_search=stub`` in this process, without drawing the page."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.folder = root / "logs" / "sweeps" / "stub-template"
        self.monkeypatch = monkeypatch
        self.configs = stub.write_configs(root / "configs")
        self.pages: list[int] = []  # how many trials each page that was written would have shown

    def run(self, *overrides: str, search: str | None = "stub", multirun: bool = True, task=stub.run_trial) -> None:
        words = [] if search is None else [f"hparams_search={search}"]
        self.monkeypatch.setattr(sys, "argv", ["run.py", *(["-m"] if multirun else []), *words, *overrides])
        stub.run(self.configs, task)

    def tested(self) -> list[str]:
        log = self.root / "tested.txt"
        return log.read_text().split() if log.exists() else []


@pytest.fixture
def app(tmp_path, monkeypatch) -> App:
    monkeypatch.chdir(tmp_path)
    fit = stub.make_fit_stub(tmp_path / "tested.txt")
    monkeypatch.setitem(sys.modules, "cxr.training.fit", fit)
    monkeypatch.setattr(cxr.training, "fit", fit, raising=False)
    app = App(tmp_path, monkeypatch)
    monkeypatch.setattr(sweeper, "write_page", lambda study, *_: app.pages.append(len(study.trials)))
    return app


@pytest.fixture
def study():
    """A study in memory with three finished trials, one failed and one interrupted."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="a study", direction="maximize")
    for value in (0.5, 0.9, 0.7):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0.0, 1.0)})
        trial.set_user_attr("run_dir", f"trial_{trial.number}")
        trial.set_user_attr("checkpoint", f"trial_{trial.number}/checkpoints/best.ckpt")
        study.tell(trial, value)
    failed = study.ask()
    failed.set_user_attr("error", "the loss is <nan>")
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    return study


@pytest.fixture
def stub_command(tmp_path, monkeypatch) -> list[str]:
    """The command of the tests' own run.py; to be run in `tmp_path`."""
    monkeypatch.setenv("STUB_CONFIGS", str(stub.write_configs(tmp_path / "configs")))
    return [sys.executable, str(STUB)]


def load_neighbour(name):
    """A module beside this file, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def postgres(tmp_path):
    """A PostgreSQL server that runs; skipped where the binaries or the driver are absent."""
    databases = load_neighbour("databases")
    if databases.find_binary("initdb") is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg")
    server = databases.Postgres(tmp_path / "postgres")
    server.start()
    yield server
    with contextlib.suppress(subprocess.CalledProcessError):
        server.stop()
