import pytest
import torch

from cxr.errors import ConfigError
from cxr.training.assemble import assemble
from cxr.training.devices import require_devices, visible_gpus


@pytest.mark.parametrize(
    ("count", "named", "expected"),
    [(0, None, []), (2, None, ["0", "1"]), (2, "3,GPU-a", ["3", "GPU-a"]), (0, "", []), (1, "1,9", ["1"])],
    ids=["none", "all", "named", "hidden", "one that is not there"],
)
def test_gpus_are_named_as_the_environment_names_them(monkeypatch, count, named, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("hidden", "told"), [(None, "is not set"), ("", "is ''")], ids=["no driver", "hidden by the environment"]
)
def test_a_gpu_where_there_is_none(monkeypatch, hidden, told):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    for name in ("gpu", "cuda"):
        expected = (
            f"expected a CUDA GPU for trainer.accelerator={name}, but torch .* sees none .*{told}.*trainer=ddp_sim"
        )
        with pytest.raises(ConfigError, match=expected):
            require_devices(name, 1)
    for name in ("cpu", "auto"):
        require_devices(name, 8)


@pytest.mark.parametrize("devices", [3, [0, 2]], ids=["number", "one by one"])
def test_more_gpus_than_there_are(monkeypatch, devices):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        ConfigError, match="expected at most the 2 GPUs that torch sees, but got trainer.devices=.*auto"
    ):
        require_devices("cuda", devices)
    for enough in (2, [1], -1, "auto"):
        require_devices("cuda", enough)


def test_a_run_on_missing_gpus_is_refused_before_any_work(compose_run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    config = compose_run(tmp_path / "run", "trainer=fsdp", without=("trainer.accelerator",))
    with pytest.raises(ConfigError, match="expected a CUDA GPU for trainer.accelerator=gpu"):
        assemble(config)
