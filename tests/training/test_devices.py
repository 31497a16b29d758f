import pytest
import torch

from cxr.training.devices import visible_gpus


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
