import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from cxr.errors import ConfigError, WeightsError
from cxr.models.build import build_net, count_parameters
from cxr.models.transfer import (
    find_stages,
    hold_still,
    layers_upto,
    make_tuning,
    redraw_after,
    take_weights,
)

SMALL = {"filters_1": 4, "filters_2": 6, "filters_3": 8, "filters_4": 10, "dense_units": 5}
DENSENET_STAGES = ["norm0", "transition1", "transition2", "transition3", "norm5"]
FIVE_BLOCKS = [f"blocks.{number}" for number in range(5)]
RESNETV2 = ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "norm"]
STAGES = [
    ("custom_cnn", {}, ["block1", "block2", "block3", "block4"]),
    ("torchvision_densenet", {}, [f"features.{name}" for name in DENSENET_STAGES]),
    ("xrv_densenet121", {}, [f"features.{name}" for name in DENSENET_STAGES]),
    ("rad_dino", {"pretrained": False}, ["patch_embed", *(f"blocks.{number}" for number in range(11)), "norm"]),
    ("timm", {"architecture": "resnet18"}, ["bn1", "layer1", "layer2", "layer3", "layer4"]),
    ("timm", {"architecture": "vgg16"}, [f"features.{n}" for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]),
    ("timm", {"architecture": "mobilenetv1_100"}, ["bn1", *FIVE_BLOCKS]),
    ("timm", {"architecture": "mobilenetv4_conv_small"}, ["bn1", *FIVE_BLOCKS, "norm_head"]),
    ("timm", {"architecture": "resnetv2_50"}, RESNETV2),
    ("timm", {"architecture": "coatnet_0_rw_224"}, ["stem", "stages.0", "stages.1", "stages.2", "norm"]),
    ("timm", {"architecture": "convnext_atto"}, ["stem", *(f"stages.{number}" for number in range(4)), "head.norm"]),
    ("timm", {"architecture": "efficientnet_b0"}, ["bn1", *FIVE_BLOCKS, "blocks.5", "bn2"]),
]


def ids(values):
    return values.get("architecture", "") if isinstance(values, dict) else values if isinstance(values, str) else ""


def make_small(seed=0, classes=3, **arguments):
    torch.manual_seed(seed)
    return build_net("custom_cnn", classes, **SMALL, **arguments)


def owner(name):
    return name.rpartition(".")[0]


@pytest.mark.parametrize(("name", "arguments", "expected"), STAGES, ids=ids)
class TestStages:
    def test_are_named_by_the_net_s_own_layers(self, name, arguments, expected):
        with torch.device("meta"):
            stages = find_stages(build_net(name, 2, **arguments))
        assert [stage.name for stage in stages] == [*expected, "head"]

    def test_hold_every_parameter_once_and_end_with_the_layer_they_are_named_by(self, name, arguments, expected):
        with torch.device("meta"):
            net = build_net(name, 2, **arguments)
        stages = find_stages(net)
        held = [module for stage in stages for module in stage.modules]
        assert len(held) == len(set(held))
        owners = {owner(name) for name, _ in net.named_parameters()}
        assert owners <= set(held)
        so_far = set()
        for stage in stages[:-1]:
            so_far |= owners.intersection(stage.modules)
            assert layers_upto(net, stage.name, "key") & owners == so_far


@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, arguments) for name, arguments, _ in STAGES if name != "rad_dino" and "vgg16" not in arguments.values()],
    ids=ids,
)
def test_stages_are_in_the_order_of_the_forward_pass(name, arguments):
    net = build_net(name, 2, **arguments).eval()
    called = []
    stages = find_stages(net)
    for number, stage in enumerate(stages):
        for module in stage.modules:
            part = net.get_submodule(module)
            if list(part.parameters(recurse=False)) and module != "backbone":
                part.register_forward_hook(lambda *_, number=number: called.append(number))
    size = net.input_contract.size or (64, 64)
    with torch.no_grad():
        net(torch.zeros(1, net.input_contract.channels, *size))
    assert called == sorted(called)
    assert set(called) == set(range(len(stages)))


def test_learning_rates_are_those_of_timm_s_layer_decay():
    net, reference = build_net("timm", 2, architecture="test_vit"), timm.create_model("test_vit", num_classes=2)
    names = {id(one): name for name, one in reference.named_parameters()}
    groups = param_groups_layer_decay(reference, layer_decay=0.5)
    expected = {names[id(one)]: group["lr_scale"] for group in groups for one in group["params"]}
    ours = make_tuning(net, layer_decay=0.5).groups(net)
    scales = {id(one): group["lr_scale"] for group in ours for one in group["params"]}
    for name, one in net.backbone.named_parameters():
        assert scales[id(one)] == pytest.approx(expected[name]), name
    assert {scales[id(one)] for one in net.head.parameters()} == {expected["head.weight"]} == {1.0}
    assert len(set(expected.values())) > 4


@pytest.mark.parametrize("layer", ["block1", "block3", "block3.norm", "backbone"])
def test_freezing_reaches_exactly_the_layers_up_to_the_named_one(layer):
    net = make_small()
    frozen = [name for name, one in net.named_parameters() if make_tuning(net, layer) and not one.requires_grad]
    prefixes = {
        "block1": ("block1.",), "block3": ("block1.", "block2.", "block3."),
        "block3.norm": ("block1.", "block2.", "block3."), "backbone": ("",),
    }[layer]  # fmt: skip
    expected = [name for name, _ in net.named_parameters()
                if name.startswith(tuple(f"backbone.{prefix}" for prefix in prefixes))]  # fmt: skip
    assert frozen == expected
    assert count_parameters(net)["frozen"] == sum(net.get_parameter(name).numel() for name in expected)


@pytest.mark.parametrize(
    ("layer", "trains"),
    [("layer2", ["layer3.0.bn1", "layer4.1.bn2"]), ("layer4", []), ("layer2.0.bn1", ["layer2.0.bn2", "layer3.0.bn1"])],
)
def test_frozen_batch_norm_keeps_its_statistics_in_training(layer, trains):
    net = build_net("timm", 2, architecture="resnet18", in_channels=1)
    tuning = make_tuning(net, layer)
    net.train()
    tuning.apply(net, epoch=0)
    frozen = layers_upto(net, layer, "key")
    before = {name: value.clone() for name, value in net.named_buffers()}
    net(torch.rand(4, 1, 64, 64))
    moved = {owner(name) for name, value in net.named_buffers() if not torch.equal(value, before[name])}
    norms = {name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert moved == norms - frozen
    assert {f"backbone.{name}" for name in trains} <= moved


def test_a_module_stands_still_only_with_all_its_parts():
    net = make_small(block2_drop_rate=0.5).train()
    hold_still(net, layers_upto(net, "block2", "key"))
    assert not net.backbone.block1.training
    assert not net.backbone.block2.norm.training
    assert net.backbone.dropout2.training
    assert net.backbone.training
    assert net.training
    hold_still(net, layers_upto(net, "backbone", "key"))
    assert not net.backbone.training
    assert net.head.dropout.training


def test_stages_join_in_from_the_head_down():
    net = make_small()
    tuning = make_tuning(net, "block1", unfreeze_every=2)
    learning = []
    for epoch in range(8):
        tuning.apply(net.train(), epoch)
        named = [name for name, one in net.named_parameters() if one.requires_grad]
        learning.append(sorted({name.split(".")[name.startswith("backbone")] for name in named}))
        assert net.backbone.block4.norm.training == (epoch >= 2)
        assert not net.backbone.block1.training
    expected = [["head"], ["block4", "head"], ["block3", "block4", "head"], ["block2", "block3", "block4", "head"]]
    assert learning == [stages for stages in expected for _ in range(2)]


def test_what_needs_no_gradient_of_its_own_never_learns():
    net = make_small()
    fixed = net.backbone.block3.convolution.weight
    fixed.requires_grad = False
    tuning = make_tuning(net, unfreeze_every=1, layer_decay=0.5)
    tuning.apply(net, epoch=9)
    assert not fixed.requires_grad
    assert all(one is not fixed for group in tuning.groups(net) for one in group["params"])


def test_an_optimiser_gets_every_learning_parameter_once_at_its_rate():
    net = make_small()
    tuning = make_tuning(net, "block2", layer_decay=0.4)
    groups = tuning.groups(net)
    assert [group["lr_scale"] for group in groups] == pytest.approx([1, 0.4, 0.16])
    given = [id(one) for group in groups for one in group["params"]]
    assert sorted(given) == sorted(id(one) for one in net.parameters() if one.requires_grad)
    assert all(set(group) == {"params", "lr_scale"} for group in groups)
    assert {id(one) for one in net.head.parameters()} == {id(one) for one in groups[0]["params"]}


def test_without_wishes_everything_learns_in_the_order_of_the_net():
    net = make_small()
    tuning = make_tuning(net)
    assert [id(one) for one in tuning.groups(net)] == [id(one) for one in net.parameters()]
    tuning.apply(net.train(), epoch=0)
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize("layer", ["block2", "block2.convolution", "dropout2", "backbone"])
def test_weights_up_to_a_layer_stay_and_those_after_differ(layer):
    net, fresh, loaded = make_small(1), make_small(2), make_small(1).state_dict()
    with torch.no_grad():
        net.head.output.bias.add_(1)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.add_(1)
                loaded = net.state_dict()
    loaded = {name: value.clone() for name, value in loaded.items()}
    redraw_after(net, layer, fresh)
    kept = layers_upto(net, layer, "key")
    for name, value in net.state_dict().items():
        assert torch.equal(value, loaded[name] if owner(name) in kept else fresh.state_dict()[name]), name
    assert torch.equal(net.backbone.block1.convolution.weight, loaded["backbone.block1.convolution.weight"])
    assert torch.equal(net.head.hidden.weight, fresh.head.hidden.weight)
    if layer != "backbone":
        assert not torch.equal(net.backbone.block3.convolution.weight, loaded["backbone.block3.convolution.weight"])
        assert torch.equal(net.backbone.block3.norm.running_mean, torch.zeros(8))


def test_the_head_is_taken_only_where_it_answers_the_same_question_with_the_same_layers():
    source = make_small(1)
    assert take_weights(same := make_small(2), source, True, "a run")
    assert torch.equal(same.head.output.weight, source.head.output.weight)
    for net, asked_alike in [(make_small(2), False), (make_small(2, classes=2), True)]:
        before = net.head.output.weight.clone()
        assert not take_weights(net, source, asked_alike, "a run")
        assert torch.equal(net.head.output.weight, before)
        assert torch.equal(net.backbone.block4.convolution.weight, source.backbone.block4.convolution.weight)


def test_a_backbone_of_other_shapes_is_refused_by_name():
    other = build_net("custom_cnn", 3, **(SMALL | {"filters_2": 7}))
    message = r"the backbone of runs/a to hold the tensors of this net, got of another shape: " \
              r"block2.convolution.weight \(7, 4, 3, 3\) instead of \(6, 4, 3, 3\)"  # fmt: skip
    with pytest.raises(WeightsError, match=message):
        take_weights(make_small(), other, True, "runs/a")


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (
            "blok2",
            "got 'blok2'; near it are block2, block.*; choose one of its stages block1, block2, block3, block4, a",
        ),
        ("zzz", "got 'zzz'; choose one of its stages block1, block2, block3, block4, a layer inside one, or backbone"),
        ("", "got ''; choose one of its stages"),
        ("head", "got 'head'; choose one of its stages"),
    ],
)
def test_an_unknown_layer_is_told_with_those_there_are(layer, told):
    with pytest.raises(ConfigError, match=f"expected transfer.freeze_upto to name a layer of this net, {told}"):
        make_tuning(make_small(), layer)
    with pytest.raises(ConfigError, match=f"expected transfer.pretrained_upto to name a layer of this net, {told}"):
        redraw_after(make_small(), layer, make_small())
