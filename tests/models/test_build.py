import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from cxr.errors import ConfigError
from cxr.models.build import BUILDERS, build_net, count_parameters, without_weights
from cxr.models.head import make_head

NETS = [
    ("custom_cnn", {}),
    ("rad_dino", {"pretrained": False, "img_size": 56}),
    ("timm", {"architecture": "test_resnet", "in_channels": 1}),
    ("torchvision_densenet", {"architecture": "densenet121", "in_channels": 1}),
    ("xrv_densenet121", {}),
]


def draw_images(net, count):
    size = (64, 64) if net.input_contract.size is None else net.input_contract.size
    return torch.rand(count, net.input_contract.channels, *size)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [pytest.param(*net, marks=[pytest.mark.slow] * (net[0] == "rad_dino")) for net in NETS],
    ids=lambda value: value if isinstance(value, str) else "",
)
class TestEveryNet:
    def test_gives_exactly_k_logits_in_either_memory_format(self, name, arguments):
        net = build_net(name, 4, **arguments).eval()
        images = draw_images(net, 2)
        logits = net(images)
        assert logits.shape == (2, 4)
        last = net.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(last, logits, rtol=1e-3, atol=1e-4)

    def test_is_rebuilt_from_its_name_and_json_arguments(self, name, arguments):
        net = build_net(name, 3, **arguments).eval()
        stored = json.loads(json.dumps(arguments))
        twin = build_net(name, 3, **without_weights(stored)).eval()
        twin.load_state_dict(net.state_dict())
        images = draw_images(net, 1)
        assert torch.equal(twin(images), net(images))


def test_every_builder_is_among_the_nets_tested_here():
    assert {name for name, _ in NETS} == set(BUILDERS)


def test_weights_are_left_out_for_a_rebuild():
    arguments = {"architecture": "resnet18", "pretrained": True, "weights_path": "a.pt", "drop_rate": 0.1}
    expected = {"architecture": "resnet18", "pretrained": False, "weights_path": None, "drop_rate": 0.1}
    assert without_weights(arguments) == expected
    assert without_weights({"weights": "all"}) == {"weights": None}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet", {}, "expected net.name to be one of custom_cnn, rad_dino, timm, .*got 'resnet'"),
        ("custom_cnn", {"kernal": 3}, "expected the net custom_cnn to have the keys .*kernel.*, got kernal; remove"),
        ("timm", {}, "expected the net timm to have architecture, got none; set net.architecture="),
        ("timm", {"architecture": "resnet18", "head": {"units": 3}}, "net.head to have the keys hidden, .*got units"),
    ],
)
def test_unknown_and_missing_names_are_named(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_net(name, 2, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "timm", "architecture": 121}, r"architecture to be a timm model, got '121'"),
        ({"name": "timm", "architecture": "resnet18", "img_size": [224]}, r"img_size to be null, .*got \[224\]"),
        ({"name": "timm", "architecture": "resnet18", "img_size": "big"}, "img_size to be null, .*got 'big'"),
        ({"name": "timm", "architecture": "resnet18", "img_size": -32}, "img_size to be null, .*got -32; give whole"),
        ({"name": "timm", "architecture": "resnet18", "img_size": 2.5}, r"img_size to be null, .*got 2\.5"),
        ({"name": "timm", "architecture": "resnet18", "pretrained": "no"}, "pretrained to be one of true, false, got"),
        ({"name": "timm", "architecture": "resnet18", "in_channels": "1"}, "in_channels to be one of 1, 3, got '1'"),
        ({"name": "torchvision_densenet", "architecture": ["densenet121"]}, r"densenet201, got \['densenet121'\]"),
        ({"name": "torchvision_densenet", "pretrained": 1}, "pretrained to be one of true, false, got 1; choose"),
        ({"name": "custom_cnn", "filters_1": True}, "filters_1 to be a whole number above 0, got True"),
        ({"name": "custom_cnn", "batch_norm": "off"}, "batch_norm to be one of true, false, got 'off'"),
        ({"name": "xrv_densenet121", "weights": ["all"]}, r"weights to be one of all, .*null, got \['all'\]; choose"),
        ({"name": "xrv_densenet121", "head": "x"}, "net.head to have the keys hidden, .*got 'x'; name each value"),
        ({"name": "xrv_densenet121", "head": 3}, "net.head to have the keys hidden, activation, dropout, got 3"),
        (
            {"name": "xrv_densenet121", "head": {"hidden": 3, "activation": ["relu"]}},
            r"activation to be one of relu, .*got \['relu'\]",
        ),
    ],
)
def test_values_of_a_wrong_type_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_net(num_classes=2, **arguments)


@pytest.mark.parametrize("weights_path", ["", "/", 5])
@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "xrv_densenet121", "weights": "all"},
        {"name": "torchvision_densenet", "pretrained": True},
        {"name": "timm", "architecture": "resnet18", "pretrained": True},
    ],
    ids=lambda arguments: arguments["name"],
)
def test_what_is_no_path_of_a_file_is_refused(arguments, weights_path):
    with pytest.raises(ConfigError, match=r"weights_path to be null or the path of a file, got .*; mend it"):
        build_net(num_classes=2, weights_path=weights_path, **arguments)


def test_zero_classes_are_refused():
    with pytest.raises(ConfigError, match=r"expected net\.num_classes to be a whole number above 0, got 0"):
        build_net("custom_cnn", 0)


def test_count_tells_trainable_from_frozen():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    for parameter in net[0].parameters():
        parameter.requires_grad = False
    assert count_parameters(net) == {"total": 14, "trainable": 6, "frozen": 8}


def test_a_hidden_head_is_not_linear():
    """Without the non-linearity two dense layers are one affine map: f(a) + f(b) = f(a + b) + f(0)."""
    torch.manual_seed(0)
    a, b = torch.randn(1, 8), torch.randn(1, 8)

    def departure(head: nn.Sequential) -> float:
        return (head(a) + head(b) - head(a + b) - head(torch.zeros(1, 8))).abs().max().item()

    assert departure(make_head(8, 3).eval()) < 1e-6
    hidden = make_head(8, 3, hidden=16, activation="relu", dropout=0.2).eval()
    assert departure(hidden) > 1e-3
    assert isinstance(hidden.activation, nn.ReLU)
    assert hidden.dropout.p == 0.2


def test_the_head_reaches_every_net_with_a_backbone():
    head = {"hidden": 16, "activation": "gelu", "dropout": 0.2}
    for name, arguments in NETS[1:]:
        with torch.device("meta"):
            net = build_net(name, 3, head=head, **arguments)
        assert net.head.hidden.out_features == 16
        assert isinstance(net.head.activation, nn.GELU)
        assert net.head.dropout.p == 0.2


def test_forward_compiles_into_one_graph():
    net = build_net("custom_cnn", 2).eval()
    images = torch.rand(2, 1, 32, 32)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), net(images))


def test_importing_the_dictionary_imports_no_library_of_nets():
    code = (
        "import sys, cxr.models.build;"
        "heavy = {'timm', 'torchvision', 'torchxrayvision', 'huggingface_hub'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
