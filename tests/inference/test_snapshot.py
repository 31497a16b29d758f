import json

import numpy as np
import pytest
import torch

from cxr.errors import WeightsError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import Fitted, load_bundle, write_bundle
from cxr.inference.snapshot import write_snapshot
from cxr.models.build import build_net
from cxr.scaling import Scaling

NET = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}


POINT = {"threshold": 0.5, "positive_class": "b"}


def make_net(seed, **changes):
    torch.manual_seed(seed)
    return build_net(num_classes=2, **NET | changes)


@pytest.fixture
def bundle(tmp_path):
    write_bundle(tmp_path / "bundle", make_net(0), NET, ["a", "b"], Preprocess(size=(32, 32)), {"run": "one"},
                 fitted=Fitted(scaling=Scaling(3.0), operating_point=POINT))  # fmt: skip
    return tmp_path / "bundle"


def save(path, net):
    state = {f"net.{name}": tensor for name, tensor in net.state_dict().items()} | {"loss.weight": torch.ones(2)}
    torch.save({"state_dict": state, "epoch": 3}, path)
    return path


def test_a_snapshot_is_the_net_of_the_checkpoint_without_the_runs_scaling(bundle, tmp_path):
    other = make_net(1)
    write_snapshot(bundle, save(tmp_path / "epoch.ckpt", other), tmp_path / "snapshot")
    found = load_bundle(tmp_path / "snapshot")
    images = [np.random.default_rng(0).random((32, 32), dtype=np.float32)]
    expected = torch.softmax(other.eval()(torch.from_numpy(found.preprocess(images[0]))[None]), dim=1)
    np.testing.assert_allclose(found.predict_pixels(images), expected.detach(), atol=1e-6)
    assert (found.calibrated, found.operating_point, found.extras) == (False, None, {"run": "one"})


def test_a_checkpoint_of_another_net_is_refused(bundle, tmp_path):
    with pytest.raises(WeightsError, match=r"epoch.ckpt to hold the tensors of this net, .* of another shape"):
        write_snapshot(bundle, save(tmp_path / "epoch.ckpt", make_net(1, dense_units=6)), tmp_path / "snapshot")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", json.dumps({}).encode()])
def test_a_damaged_checkpoint_is_refused(bundle, tmp_path, content):
    (tmp_path / "epoch.ckpt").write_bytes(content)
    with pytest.raises(WeightsError, match="expected a checkpoint of the run in .*; leave it out"):
        write_snapshot(bundle, tmp_path / "epoch.ckpt", tmp_path / "snapshot")
