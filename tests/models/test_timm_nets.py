import itertools

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch

from cxr.errors import ConfigError, WeightsError
from cxr.models.build import build_net
from cxr.models.head import recompute_activations

RESNET, VIT = "test_resnet.r160_in1k", "test_vit.r160_in1k"


@pytest.fixture
def weights_file(tmp_path):
    def write(architecture: str):
        torch.manual_seed(0)
        net = timm.create_model(architecture).eval()
        path = tmp_path / f"{architecture}.safetensors"
        safetensors.torch.save_file(net.state_dict(), path)
        return net, path

    return write


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of weights; returns the folder of torch's hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_pretrained_weights_give_timm_s_features_and_metadata(weights_file):
    reference, path = weights_file(RESNET)
    net = build_net("timm", 3, architecture=RESNET, pretrained=True, weights_path=str(path)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = reference.forward_head(reference.forward_features(images), pre_logits=True)
        torch.testing.assert_close(net.backbone(images), expected)
        assert net(images).shape == (2, 3)
    described = timm.get_pretrained_cfg(RESNET)
    assert (net.input_contract.mean, net.input_contract.std) == (described.mean, described.std)
    assert (net.input_contract.channels, net.input_contract.size) == (3, None)


def test_one_channel_sees_a_grey_image_as_three_equal_channels(weights_file):
    reference, path = weights_file(RESNET)
    arguments = {"architecture": RESNET, "pretrained": True, "weights_path": str(path), "in_channels": 1}
    net = build_net("timm", 3, **arguments).eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = reference.forward_head(reference.forward_features(grey.expand(-1, 3, -1, -1)), pre_logits=True)
        torch.testing.assert_close(net.backbone(grey), expected, rtol=1e-3, atol=1e-4)
    assert net.input_contract.mean == pytest.approx((sum(timm.get_pretrained_cfg(RESNET).mean) / 3,))


def test_position_embeddings_are_interpolated_to_the_image_size(weights_file):
    reference, path = weights_file(VIT)
    arguments = {"architecture": VIT, "pretrained": True, "weights_path": str(path), "img_size": [96, 128]}
    net = build_net("timm", 2, **arguments).eval()
    assert net.input_contract.size == (96, 128)
    assert net.backbone.pos_embed.shape[1] < reference.pos_embed.shape[1]
    assert torch.equal(net.backbone.blocks[0].mlp.fc1.weight, reference.blocks[0].mlp.fc1.weight)
    assert net(torch.rand(1, 3, 96, 128)).shape == (1, 2)


def test_a_fixed_size_is_in_the_contract():
    net = build_net("timm", 2, architecture="test_vit")
    assert net.input_contract.size == timm.get_pretrained_cfg("test_vit").input_size[1:]
    assert net.input_contract.mean is None


@pytest.mark.parametrize("architecture", ["resnet10t", "vit_tiny_patch16_224"])
def test_convolutional_nets_and_transformers_take_300_pixels(architecture):
    net = build_net("timm", 2, architecture=architecture, in_channels=1, img_size=300).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 1, 300, 300)).shape == (1, 2)
    assert net.input_contract.size == (None if architecture == "resnet10t" else (300, 300))


@pytest.mark.parametrize("side", [288, 320])
@pytest.mark.parametrize("architecture", ["coatnet_nano_rw_224", "coatnet_pico_rw_224"])
def test_hybrid_nets_take_multiples_of_32(architecture, side):
    net = build_net("timm", 2, architecture=architecture, in_channels=1, img_size=side).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 1, side, side)).shape == (1, 2)
    assert net.input_contract.size == (side, side)


@pytest.mark.parametrize(
    ("architecture", "size", "near"),
    [
        (
            "coatnet_0_rw_224",
            300,
            r"300x300; choose preprocess.size=\[288, 288\] or \[320, 320\], or net.img_size=null",
        ),
        ("coatnet_0_224", 300, r"300x300; choose preprocess.size=\[288, 288\] or \[320, 320\], or net.img_size=null"),
        ("coatnet_4_224", 250, r"250x250; choose preprocess.size=\[224, 224\] or \[256, 256\], or net.img_size=null"),
        ("coatnet_0_rw_224", [288, 310], r"288x310; choose preprocess.size=\[288, 288\] or \[288, 320\], or"),
        ("levit_128s", 300, r"300x300; choose preprocess.size=\[288, 288\] or \[320, 320\], or net.img_size=null"),
        ("test_vit", 5, r"5x5; choose preprocess.size=\[32, 32\], or net.img_size=null"),
    ],
)
def test_a_size_that_cannot_work_is_an_error_that_names_near_ones(architecture, size, near):
    with pytest.raises(ConfigError, match=f"expected a size that {architecture} can take, got {near}"):
        build_net("timm", 2, architecture=architecture, img_size=size)


def test_vgg_has_no_dense_layers_of_its_own():
    """3 x 3 convolutions with bias; the published net has 138 million parameters."""
    with torch.device("meta"):
        net = build_net("timm", 2, architecture="vgg16")
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + b for a, b in itertools.pairwise(widths))
    assert sum(one.numel() for one in net.parameters()) == convolutions + 512 * 2 + 2


@pytest.mark.slow
def test_the_file_of_vgg_is_read_with_its_dense_layers(weights_file):
    reference, path = weights_file("vgg11")
    net = build_net("timm", 2, architecture="vgg11", pretrained=True, weights_path=str(path))
    assert torch.equal(net.backbone.features[3].weight, reference.features[3].weight)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net.eval().backbone(images), reference.features(images).mean(dim=(2, 3)))
    assert net.input_contract.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    "architecture",
    [
        *("vgg16", "mobilenetv1_100", "mobilenetv2_050", "mobilenetv3_small_100", "mobilenetv4_conv_small"),
        *("resnetv2_50", "efficientnet_b0", "convnext_tiny"),
        *("coatnet_0_rw_224", "coatnet_1_rw_224", "coatnet_2_rw_224", "coatnet_3_rw_224", "coatnet_4_224"),
    ],
)
def test_every_architecture_that_the_recipes_name_gives_k_logits(architecture):
    with torch.device("meta"), torch.no_grad():
        net = build_net("timm", 3, architecture=architecture, in_channels=1, img_size=(224, 224)).eval()
        assert net(torch.empty(1, 1, 224, 224)).shape == (1, 3)


@pytest.mark.parametrize("architecture", ["mobilenetv3_small_050", "test_convnext", "test_efficientnet"])
def test_every_family_gives_exactly_k_logits(architecture):
    net = build_net("timm", 3, architecture=architecture, in_channels=1).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 1, 64, 64)).shape == (1, 3)


def test_dropout_and_stochastic_depth_reach_the_net():
    net = build_net("timm", 2, architecture="resnet18", drop_rate=0.5, drop_path_rate=0.25)
    depths = [module.drop_prob for module in net.modules() if type(module).__name__ == "DropPath"]
    assert max(depths) == pytest.approx(0.25)
    torch.manual_seed(0)
    dropped = (net.backbone(torch.rand(4, 3, 64, 64)) == 0).float().mean().item()
    assert 0.3 < dropped < 0.9


RATES = [
    ("mobilenetv3_small_050", "DropPath"), ("resnetv2_50", "DropPath"), ("coatnet_pico_rw_224", "DropPath"),
    ("efficientnet_b0", "DropPath"), ("convnext_atto", "DropPath"), ("vit_tiny_patch16_224", "DropPath"),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "kind"), RATES)
def test_drop_rate_and_drop_path_rate_reach_every_family(architecture, kind):
    with torch.device("meta"):
        net = build_net("timm", 2, architecture=architecture, drop_rate=0.5, drop_path_rate=0.25)
    depths = [module.drop_prob for module in net.modules() if type(module).__name__ == kind]
    assert 0.15 < max(depths) <= 0.25
    rates = {module.p for module in net.backbone.modules() if isinstance(module, torch.nn.Dropout)}
    assert 0.5 in rates | {getattr(net.backbone, "drop_rate", None)}


def test_the_file_is_found_in_torch_s_folder(weights_file, caches):
    reference, path = weights_file(RESNET)
    caches.mkdir(parents=True)
    path.rename(caches / path.name)
    net = build_net("timm", 2, architecture="test_resnet", pretrained=True)
    assert torch.equal(net.backbone.state_dict()["conv1.0.weight"], reference.state_dict()["conv1.0.weight"])


def test_the_file_is_found_in_hugging_face_s_cache(weights_file, caches, tmp_path):
    reference, path = weights_file(RESNET)
    repository = tmp_path / "hf" / f"models--timm--{RESNET}"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    path.rename(snapshot / "model.safetensors")
    net = build_net("timm", 2, architecture=RESNET, pretrained=True)
    assert torch.equal(net.backbone.state_dict()["conv1.0.weight"], reference.state_dict()["conv1.0.weight"])


def test_an_absent_file_is_downloaded(weights_file, caches, file_server, monkeypatch):
    _, path = weights_file(RESNET)
    file_server.files[f"/timm/{RESNET}/model.safetensors"] = path.read_bytes()
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *parts: "/".join([file_server.address, *parts]))
    build_net("timm", 2, architecture=RESNET, pretrained=True)
    assert (caches / f"{RESNET}.safetensors").is_file()


def test_without_network_the_error_names_the_remedies(caches, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *parts: "/".join(["http://127.0.0.1:9", *parts]))
    place = caches / f"{RESNET}.safetensors"
    with pytest.raises(WeightsError, match=rf"{place}.*{RESNET}/model.*net\.weights_path=.*net\.pretrained=false"):
        build_net("timm", 2, architecture=RESNET, pretrained=True)


@pytest.mark.parametrize(("architecture", "told"), [(RESNET, "conv1"), ("convnext_atto", "fc.weight")])
def test_a_file_of_another_net_is_refused(weights_file, architecture, told):
    _, path = weights_file(VIT if architecture == RESNET else RESNET)
    with pytest.raises(WeightsError, match=rf"expected .* to hold the weights of {architecture}, got .*{told}"):
        build_net("timm", 2, architecture=architecture, pretrained=True, weights_path=str(path))


def test_a_classifier_of_any_width_may_be_in_the_file(tmp_path):
    path = tmp_path / "finetuned.pth"
    torch.save(timm.create_model(RESNET, num_classes=5).state_dict(), path)
    net = build_net("timm", 2, architecture=RESNET, pretrained=True, weights_path=str(path))
    assert net(torch.rand(2, 3, 64, 64)).shape == (2, 2)


def test_an_architecture_without_weights_is_named():
    with pytest.raises(WeightsError, match=r"expected weights for coatnet_0_224, .*e.g. coatnet_0_rw_224.sw_in1k"):
        build_net("timm", 2, architecture="coatnet_0_224", pretrained=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "resnet81"}, "to be a timm model, got 'resnet81'; choose e.g. resnet"),
        ({"architecture": "???"}, r"got '\?\?\?'; list them with timm.list_models"),
        ({"architecture": "resnet18.imagenet"}, "weights of resnet18 to be one of resnet18.a1_in1k, .*got 'imagenet'"),
        ({"architecture": "resnet18", "in_channels": 2}, "expected net.in_channels to be one of 1, 3, got 2"),
        ({"architecture": "resnet18", "weights_path": "a.pt"}, "expected net.pretrained=true with net.weights_path"),
        ({"architecture": "vgg11", "drop_path_rate": 0.1}, "options that vgg11 has, got .*'drop_path_rate'"),
        ({"architecture": "resnet18", "drop_rate": 2}, "expected net.drop_rate to be at least 0 and below 1, got 2"),
    ],
)
def test_values_outside_their_range_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_net("timm", 2, **arguments)


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "densenet121"])
def test_activations_computed_twice_give_the_same_gradients(architecture):
    torch.manual_seed(0)
    net = build_net("timm", 2, architecture=architecture, img_size=32, in_channels=1).train()
    image, gradients = torch.randn(3, 1, 32, 32), []
    for _ in range(2):
        net.zero_grad()
        net(image).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
        recompute_activations(net)
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, kept)


def test_a_net_that_cannot_compute_twice_is_told():
    with pytest.raises(ConfigError, match="can compute its activations twice with grad_checkpointing=true, got one"):
        recompute_activations(build_net("custom_cnn", 2))
