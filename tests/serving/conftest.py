"""A tiny bundle and, for tests of routes, one application that serves it."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

KEY = {"X-API-Key": "cxr_0123456789abcdefghijklmnopqrstuvwxyz"}
NAMES = ["normal", "pneumonia"]


def to_png(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """(60, 40) uint8, anything but square and even."""
    return np.random.default_rng(0).integers(0, 256, (60, 40), dtype=np.uint8)


@pytest.fixture(scope="session")
def png(pixels) -> bytes:
    return to_png(pixels)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    import torch

    from cxr.imaging.preprocess import Preprocess
    from cxr.inference.bundle import Fitted, write_bundle
    from cxr.models.build import build_net
    from cxr.scaling import Scaling

    torch.manual_seed(0)
    config = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}
    net = build_net(config["name"], len(NAMES), **{key: config[key] for key in config if key != "name"})
    folder = tmp_path_factory.mktemp("served") / "bundle"
    point = {"rule": "youden", "positive_class": "pneumonia", "threshold": 0.0}
    extras = {"metrics": {"test/auroc": 0.9}, "data_fingerprint": "abc"}
    preprocess = Preprocess(size=(32, 48), normalizer="percentile")
    write_bundle(folder, net, config, NAMES, preprocess, extras, fitted=Fitted(Scaling(1.5), point))
    add_card(folder, b"# A card\n")
    return folder


def add_card(folder, content: bytes):
    """Put a model card into a bundle, as the export does."""
    (folder / "model_card.md").write_bytes(content)
    described = json.loads((folder / "bundle.json").read_text())
    described["sha256"]["model_card.md"] = hashlib.sha256(content).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(described))


@pytest.fixture(scope="session")
def make_settings(bundle):
    """make_settings(**changes): settings of a server with one decoder that serves the bundle to everybody."""
    from cxr.serving.settings import Settings

    def made(**changes):
        return Settings(**{"bundle": bundle, "key_file": None, "decoders": 1, **changes})

    return made


@pytest.fixture(scope="session")
def app(make_settings, tmp_path_factory):
    """An application with a key and low limits."""
    from cxr.serving.app import make_app
    from cxr.serving.keys import Key
    from cxr.serving.settings import Limits

    key = Key.of(KEY["X-API-Key"])
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    file.write_text(json.dumps({"format": 1, "keys": [{"id": key.key_id, "sha256": key.digest}]}))
    file.chmod(0o600)
    limits = Limits(max_body_bytes=3 * 2**20, max_files=4, queue_length=4, max_pixels=1_000_000)
    return make_app(make_settings(key_file=file, limits=limits, requests_per_second=1000))


@pytest.fixture(scope="session")
def client(app):
    """Speaks to `app`, with its key."""
    from fastapi.testclient import TestClient

    with TestClient(app, headers=KEY, raise_server_exceptions=False) as opened:
        yield opened
