"""Continuing a run: what it may be told, what it must find, and what it must not touch."""

import shutil

import pytest
import torch

from cxr.errors import ConfigError, DataError
from cxr.training.fit import fit


@pytest.fixture(scope="module")
def started(compose_run, tmp_path_factory):
    """The folder of a run of one epoch."""
    return fit(compose_run(tmp_path_factory.mktemp("started") / "run", "trainer.max_epochs=1")).run_dir


@pytest.fixture
def resume(started, compose_run, tmp_path):
    """Continue a copy of the run for a second epoch, with some overrides."""
    shutil.copytree(started, tmp_path / "run")

    def run(*overrides, checkpoint=tmp_path / "run" / "checkpoints" / "last.ckpt"):
        return fit(compose_run(tmp_path / "run", "trainer.max_epochs=2", f"ckpt_path={checkpoint}", *overrides))

    return run


def test_a_longer_run_goes_on_with_the_same_split(resume, started, tmp_path):
    split = (started / "split.csv").read_bytes()
    resume(f"data.split_file={tmp_path}/gone.csv")
    assert (tmp_path / "run" / "split.csv").read_bytes() == split
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3


def test_a_one_cycle_schedule_can_be_made_longer(compose_run, tmp_path):
    one_cycle = ("scheduler=one_cycle", "trainer.max_epochs=1")
    first = fit(compose_run(tmp_path / "run", *one_cycle))
    last = first.run_dir / "checkpoints" / "last.ckpt"
    fit(compose_run(tmp_path / "run", *one_cycle, "trainer.max_epochs=3", f"ckpt_path={last}"))
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed=5", "seed was 0 and is 5"),
        ("data.limit=40", "data.limit was None and is 40"),
        ("net.dense_units=9", "net.dense_units was [0-9]+ and is 9"),
        ("optimizer.lr=0.5", "optimizer.lr was 0.003 and is 0.5"),
        ("optimizer=sgd", "optimizer._target_ was torch.optim.AdamW and is torch.optim.SGD"),
    ],
)
def test_other_settings_are_refused(resume, started, tmp_path, override, told):
    with pytest.raises(ConfigError, match=f"continued with the settings that it was started with, but .*{told}"):
        resume(override)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == (started / "config.yaml").read_bytes()


def test_other_images_are_refused(resume, started, tmp_path):
    report = tmp_path / "run" / "data_report.json"
    fingerprint = report.read_text().split('"fingerprint": "')[1][:64]
    report.write_text(report.read_text().replace(fingerprint, "0" * 64))
    with pytest.raises(DataError, match="the images or labels are not those that the run in .* was started with"):
        resume()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot be read as one; take another of that folder"),
        (None, "cannot be read as one; take another of that folder"),
        ({"weights": 1}, "holds something else; take <run>/checkpoints/last.ckpt"),
        ({"state_dict": {}, "optimizer_states": [], "loops": {}}, "belongs to another; repeat that run's net settings"),
    ],
    ids=["empty", "truncated", "foreign", "of another net"],
)
def test_what_is_no_checkpoint_of_this_run_is_refused(resume, started, tmp_path, content, told):
    broken = tmp_path / "broken.ckpt"
    if isinstance(content, dict):
        torch.save(content, broken)
    else:
        whole = (started / "checkpoints" / "last.ckpt").read_bytes()
        broken.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match=f"ckpt_path must be a checkpoint of an earlier run.*{told}"):
        resume(checkpoint=broken)
