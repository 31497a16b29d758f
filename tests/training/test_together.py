"""What several devices cannot do together, and what is said when they lose each other."""

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.strategies import FSDPStrategy

from cxr.errors import ConfigError, TrainingError
from cxr.training.fit import fit
from cxr.training.together import check_strategy, is_divided, lost_devices, refuse_with_fsdp


def make_config(**trainer):
    return OmegaConf.create({"ema": None, "trainer": {"gradient_clip_val": None, "sync_batchnorm": False, **trainer}})


def make_trainer(**more):
    return pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **more)


def test_normalising_over_devices_needs_gpus():
    with pytest.raises(ConfigError, match="expected GPUs with trainer.sync_batchnorm=true, but the run is on the CPU"):
        check_strategy(make_trainer(), make_config(sync_batchnorm=True))


@pytest.mark.parametrize("name", ["ema", "trainer.gradient_clip_val"])
def test_what_needs_the_whole_net_is_refused_where_it_is_divided(name):
    refuse_with_fsdp({name: None})
    with pytest.raises(ConfigError, match=f"expected {name}=null with trainer=fsdp, .* but got 0.5; set it to null"):
        refuse_with_fsdp({name: 0.5})


def test_a_divided_net_is_recognised():
    class Divided:
        strategy = FSDPStrategy(parallel_devices=[torch.device("cpu")])

    Divided.strategy.cluster_environment = None
    type(Divided.strategy).local_rank = 0
    assert is_divided(Divided)
    with pytest.raises(ConfigError, match="expected trainer.gradient_clip_val=null with trainer=fsdp"):
        check_strategy(Divided, make_config(gradient_clip_val=0.5))


def test_another_number_of_processes_than_torchrun_started(monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "a"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    told = r"as many processes as trainer.devices x trainer.num_nodes.*world size \(4\).* Set both to what torchrun"
    with pytest.raises(ConfigError, match=told):
        check_strategy(make_trainer(devices=2, strategy="ddp"), make_config())
    check_strategy(make_trainer(devices=2, num_nodes=2, strategy="ddp"), make_config())


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234\nmore"),
        torch.distributed.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:1, unhandled system error"),
        torch.distributed.DistStoreError("wait timeout after 1800000ms, keys: /default_pg/0"),
    ],
    ids=["gloo", "nccl", "timeout"],
)
def test_a_lost_connection_is_one_sentence(error):
    first_line = str(error).splitlines()[0].replace("[", r"\[")
    told = f"lost the others .{first_line}.: .*ckpt_path=last does it by itself, .*NCCL_DEBUG=INFO"
    with pytest.raises(TrainingError, match=told), lost_devices():
        raise error


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"), lost_devices():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_a_divided_net_is_evaluated_whole_by_the_first_device(compose_run, tmp_path, monkeypatch):
    usual = fit(compose_run(tmp_path / "usual"))
    monkeypatch.setattr("cxr.training.fit.is_divided", lambda trainer: True)
    divided = fit(compose_run(tmp_path / "divided"))
    assert divided.metrics == pytest.approx(usual.metrics, abs=1e-6, nan_ok=True)
    assert (tmp_path / "divided" / "bundle" / "model.safetensors").read_bytes() == (
        tmp_path / "usual" / "bundle" / "model.safetensors"
    ).read_bytes()
