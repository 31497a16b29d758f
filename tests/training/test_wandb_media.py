"""W&B for real, offline: what arrives in its files, and what must not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from torch import nn

from cxr.errors import TrainingError
from cxr.training.callbacks import wandb_media
from cxr.training.callbacks.wandb_media import has_api_key, make_wandb_logger
from cxr.training.fit import fit

pytestmark = pytest.mark.slow

pytest.importorskip("wandb", reason="the extra `wandb` is not installed")


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """No key in the environment or in a netrc, and no folder of W&B's own in the home folder."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb_home"))


def media(run_dir):
    """Key -> pictures of an offline run."""
    (files,) = run_dir.glob("wandb/offline-run-*/files")
    folder = files / "media" / "images"
    pictures = {}
    for path in sorted(folder.rglob("*.png")):
        key = path.relative_to(folder).as_posix().split("_")
        name = next(i for i, part in enumerate(key) if part.isdigit())
        pictures.setdefault("_".join(key[:name]), []).append(path)
    return pictures


def test_an_offline_run_holds_the_figures_of_every_epoch_under_stable_keys(compose_run, tmp_path):
    fit(compose_run(tmp_path / "run", "logger=wandb", "trainer.max_epochs=2"))
    pictures = media(tmp_path / "run")
    every_epoch = {"val/confusion", "val/confusion_normalised", "val/f1_heatmap", "val/samples"}
    at_the_end = {"val/roc", "val/precision_recall", "test/roc", "test/precision_recall", "test/confusion",
                  "test/confusion_normalised", "test/f1_heatmap"}  # fmt: skip
    assert set(pictures) == every_epoch | at_the_end
    assert all(len(pictures[key]) >= 2 for key in every_epoch)
    for paths in pictures.values():
        with Image.open(paths[0]) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize("public", [True, False])
def test_images_are_sent_of_a_public_dataset_only(public, compose_run, tmp_path):
    words = ("logger=wandb", "trainer.max_epochs=1", "report=true", f"data.public_images={str(public).lower()}")
    fit(compose_run(tmp_path / "run", *words))
    pictures = media(tmp_path / "run")
    assert ("val/samples" in pictures) is public
    assert any(key.startswith("gallery") for key in pictures) is public
    assert "val/confusion" in pictures


def test_a_diverged_run_is_told_as_such_and_not_by_its_figures(compose_run, tmp_path):
    with pytest.raises(TrainingError, match=r"train/loss is (nan|inf) in epoch \d, expected a finite number"):
        fit(compose_run(tmp_path / "run", "logger=wandb", "optimizer.lr=1e30"))


def test_a_run_id_is_appended_to(compose_run, tmp_path):
    fit(compose_run(tmp_path / "run", "logger=wandb", "logger.wandb.id=abc123", "trainer.max_epochs=1"))
    assert list((tmp_path / "run").glob("wandb/offline-run-*-abc123"))


@pytest.mark.parametrize(
    "text", ["machine api.wandb.ai login user password secret", "machine other login a password b", "?"]
)
def test_a_key_is_found_where_wandb_login_writes_it(tmp_path, text):
    assert not has_api_key()
    (tmp_path / "netrc").write_text(text)
    assert has_api_key() == ("api.wandb.ai" in text)


def test_with_a_key_the_run_is_online(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    logger = make_wandb_logger(str(tmp_path), "project", "name", "group", None)
    assert not logger._offline
    assert (logger._wandb_init["group"], logger._wandb_init["resume"]) == ("group", "allow")


def test_without_a_key_the_run_is_offline(tmp_path):
    assert make_wandb_logger(str(tmp_path), "project", "name", None, None)._offline


@pytest.mark.parametrize("upload", [True, False])
def test_the_best_checkpoint_is_an_artifact_where_that_is_asked(compose_run, tmp_path, upload):
    overrides = ("logger=wandb", "trainer.max_epochs=2", f"callbacks.wandb_media.upload_checkpoint={upload}")
    best = fit(compose_run(tmp_path / "run", *overrides)).best_checkpoint
    staged = [path.read_bytes() for path in (tmp_path / "wandb_home").rglob("staging/*")]
    assert staged == [best.read_bytes()] * upload


@pytest.mark.parametrize("asked", [True, False])
def test_code_is_stored_and_gradients_are_watched_where_that_is_asked(compose_run, tmp_path, monkeypatch, asked):
    stored, watched = [], []
    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log_code", lambda _, root: stored.append(Path(root)))
    monkeypatch.setattr(WandbLogger, "watch", lambda _, net, **options: watched.append((net, options["log"])))
    words = (f"callbacks.wandb_media.upload_code={asked}", f"callbacks.wandb_media.watch={asked}")
    fit(compose_run(tmp_path / "run", "logger=wandb", "trainer.max_epochs=1", *words))
    assert [folder in Path(wandb_media.__file__).parents for folder in stored] == [True] * asked
    assert [(isinstance(net, nn.Module), log) for net, log in watched] == [(True, "gradients")] * asked
