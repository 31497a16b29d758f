import pytest
import torch
from torchvision import models

from cxr.errors import ConfigError, WeightsError
from cxr.models.build import build_net
from cxr.models.torchvision_nets import ARCHITECTURES


@pytest.fixture(scope="module")
def densenet():
    torch.manual_seed(0)
    return models.densenet121(weights=None).eval()


@pytest.fixture
def published_file(densenet, tmp_path):
    """The published files have dots in the names of dense layers, and no counters of batch norm."""
    state = densenet.state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    old = {name: name for name in names}
    for layer in ("norm1", "norm2", "conv1", "conv2"):
        old = {name: value.replace(f".{layer}.", f".{layer[:-1]}.{layer[-1]}.") for name, value in old.items()}
    path = tmp_path / "densenet121.pth"
    torch.save({old[name]: state[name] for name in names}, path)
    return path


def test_published_weights_give_torchvision_s_features_and_metadata(densenet, published_file):
    net = build_net("torchvision_densenet", 3, pretrained=True, weights_path=str(published_file)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = torch.relu(densenet.features(images)).mean(dim=(2, 3))
        torch.testing.assert_close(net.backbone(images), expected)
        assert net(images).shape == (2, 3)
    metadata = models.DenseNet121_Weights.IMAGENET1K_V1.transforms()
    assert net.input_contract.mean == tuple(metadata.mean)
    assert net.input_contract.std == tuple(metadata.std)
    assert (net.input_contract.low, net.input_contract.high, net.input_contract.size) == (0.0, 1.0, None)


def test_one_channel_sees_a_grey_image_as_three_equal_channels(densenet, published_file):
    arguments = {"pretrained": True, "weights_path": str(published_file), "in_channels": 1}
    net = build_net("torchvision_densenet", 3, **arguments).eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = torch.relu(densenet.features(grey.expand(-1, 3, -1, -1))).mean(dim=(2, 3))
        torch.testing.assert_close(net.backbone(grey), expected, rtol=1e-3, atol=1e-4)
    assert net.input_contract.channels == 1
    assert net.input_contract.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_reaches_every_dense_layer(architecture):
    net = build_net("torchvision_densenet", 2, architecture=architecture, drop_rate=0.25)
    layers = {"densenet121": 58, "densenet161": 78, "densenet169": 82, "densenet201": 98}[architecture]
    rates = [module.drop_rate for module in net.modules() if hasattr(module, "drop_rate")]
    assert rates == [0.25] * layers
    assert net.input_contract.mean is None


def test_without_network_the_error_names_the_remedies(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    metadata = models.DenseNet169_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(metadata, "url", "http://127.0.0.1:9/densenet169-b2777c0a.pth", raising=True)
    place = tmp_path / "hub" / "checkpoints" / "densenet169-b2777c0a.pth"
    with pytest.raises(WeightsError, match=rf"{place}.*net\.weights_path=.*net\.pretrained=false"):
        build_net("torchvision_densenet", 2, architecture="densenet169", pretrained=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "densenet264"}, "one of densenet121, .*got 'densenet264'"),
        ({"in_channels": 2}, "expected net.in_channels to be one of 1, 3, got 2"),
        ({"weights_path": "a.pth"}, "expected net.pretrained=true with net.weights_path, got false"),
        ({"drop_rate": 1.5}, "expected net.drop_rate to be at least 0 and below 1, got 1.5"),
    ],
)
def test_values_outside_their_range_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_net("torchvision_densenet", 2, **arguments)


def test_a_file_of_another_depth_is_refused(published_file):
    arguments = {"architecture": "densenet169", "pretrained": True, "weights_path": str(published_file)}
    with pytest.raises(WeightsError, match=r"densenet121\.pth to hold the tensors of this net, got missing: .* more"):
        build_net("torchvision_densenet", 2, **arguments)
