"""What tests of several rooms share: a small phantom cohort, made once, and the configs of runs of seconds on it."""

import os
import signal
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cxr.entry import prepare_environment

os.environ["OMP_NUM_THREADS"] = (
    "1"  # before torch is imported: two test processes with two threads each wait for each other
)

ROOT = Path(__file__).parents[1]

TINY = [
    "experiment=demo", "data.cohort.studies=110", "data.cohort.size=64", "data.fractions=[0.5,0.25,0.25]",
    "preprocess.size=[32,32]", "net.filters_1=4", "net.filters_2=4", "net.filters_3=8", "net.filters_4=8",
    "net.dense_units=8", "trainer.max_epochs=2", "trainer.accelerator=cpu", "callbacks=quiet", "logger=none",
    "report=false", "trainer.precision=32-true",
]  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def listen_to_ctrl_c():
    """Tests started in the background inherit an ignored SIGINT, and so would the processes that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A folder with the phantoms, decoded images and id salt that all small runs of a session share."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="session")
def tiny(lab):
    """The override lines of a run of seconds on phantoms; where it is written is up to the caller."""
    return [*TINY, f"paths.data_dir={lab}/data", f"paths.cache_dir={lab}/cache"]


@pytest.fixture(scope="session")
def compose_run(tiny):
    """compose_run(folder, *overrides): the config of a tiny run in that folder, `without` some keys of `tiny`."""
    prepare_environment()

    def composed(folder, *overrides, without=()):
        kept = [line for line in tiny if not line.startswith(tuple(without))]
        with initialize_config_dir(str(ROOT / "configs")):
            return compose("train", [*kept, f"paths.output_dir={folder}", f"run_name={folder.name}", *overrides])

    return composed


@pytest.fixture
def automl_folder(tiny, tmp_path, monkeypatch):
    """A finished AutoML plan of one classical model."""
    from cxr.experiments.plan_run import run_plan

    monkeypatch.chdir(tmp_path)
    prepare_environment()
    small = ["plan=automl", "plan.folds=3", "plan.size=[32,40]", "plan.families=[knn]", "plan.trials=1"]
    words = [*tiny, "run_name=small", "data.public_images=false", *small]
    with initialize_config_dir(str(ROOT / "configs")):
        config = compose("run", [*words, f"paths.output_dir={tmp_path}/plan", f"paths.log_dir={tmp_path}/logs"])
    run_plan(config, words, [])
    return tmp_path / "plan"
