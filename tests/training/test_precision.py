import pytest
import torch
from omegaconf import OmegaConf

from cxr.training.precision import fastest_precision, settle_precision


@pytest.fixture
def machine(monkeypatch):
    """A machine with the devices that a test names."""

    def build(cuda=None, amx=False, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda == "ampere")
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx} if amx else {})
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return build


@pytest.mark.parametrize(
    ("devices", "accelerator", "expected"),
    [
        ({"cuda": "ampere"}, "auto", "bf16-mixed"),
        ({"cuda": "ampere"}, "gpu", "bf16-mixed"),
        ({"cuda": "volta", "amx": True}, "auto", "32-true"),
        ({"cuda": "ampere"}, "cpu", "32-true"),
        ({"amx": True}, "cpu", "bf16-mixed"),
        ({"amx": True}, "auto", "bf16-mixed"),
        ({}, "auto", "32-true"),
        ({"mps": True}, "auto", "32-true"),
    ],
)
def test_bfloat16_where_the_device_multiplies_in_it(machine, devices, accelerator, expected):
    machine(**devices)
    assert fastest_precision(accelerator) == expected


def test_a_choice_stays_and_auto_becomes_what_was_used(machine):
    machine(amx=True)
    chosen = OmegaConf.create({"trainer": {"precision": "16-mixed", "accelerator": "cpu"}})
    assert settle_precision(chosen) is chosen
    left = OmegaConf.create({"trainer": {"precision": "auto", "accelerator": "cpu"}})
    assert settle_precision(left).trainer.precision == "bf16-mixed"
    assert left.trainer.precision == "auto"
