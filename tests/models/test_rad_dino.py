"""RAD-DINO beside a forward pass that is written from the tensors that Hugging Face names, without timm."""

import pytest
import safetensors.torch
import torch
from torch.nn.functional import conv2d, gelu, layer_norm, linear, scaled_dot_product_attention

from cxr.errors import ConfigError, WeightsError
from cxr.models.build import build_net

WIDTH, BLOCKS, HEADS, SIDE = 768, 12, 12, 518


def shapes():
    yield "embeddings.cls_token", (1, 1, WIDTH)
    yield "embeddings.mask_token", (1, WIDTH)
    yield "embeddings.position_embeddings", (1, 1 + (SIDE // 14) ** 2, WIDTH)
    yield "embeddings.patch_embeddings.projection.weight", (WIDTH, 3, 14, 14)
    yield "embeddings.patch_embeddings.projection.bias", (WIDTH,)
    for number in range(BLOCKS):
        block = f"encoder.layer.{number}."
        for part in ("attention.attention.query", "attention.attention.key", "attention.attention.value",
                     "attention.output.dense"):  # fmt: skip
            yield f"{block}{part}.weight", (WIDTH, WIDTH)
            yield f"{block}{part}.bias", (WIDTH,)
        yield f"{block}mlp.fc1.weight", (4 * WIDTH, WIDTH)
        yield f"{block}mlp.fc1.bias", (4 * WIDTH,)
        yield f"{block}mlp.fc2.weight", (WIDTH, 4 * WIDTH)
        yield f"{block}mlp.fc2.bias", (WIDTH,)
        yield f"{block}layer_scale1.lambda1", (WIDTH,)
        yield f"{block}layer_scale2.lambda1", (WIDTH,)
        for norm in ("norm1", "norm2"):
            yield f"{block}{norm}.weight", (WIDTH,)
            yield f"{block}{norm}.bias", (WIDTH,)
    yield "layernorm.weight", (WIDTH,)
    yield "layernorm.bias", (WIDTH,)


@pytest.fixture(scope="module")
def state():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes()}


@pytest.fixture(scope="module")
def weights_file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("rad_dino") / "model.safetensors"
    safetensors.torch.save_file(state, path)
    return str(path)


def encode(state, images):
    """DINOv2 (Oquab et al. 2024, arXiv:2304.07193): class token after the last norm of images (B, 3, 518, 518)."""

    def of(name, *parts):
        return [state[f"{name}.{part}"] for part in parts]

    def norm(tokens, name):
        return layer_norm(tokens, (WIDTH,), *of(name, "weight", "bias"), eps=1e-6)

    patches = conv2d(images, *of("embeddings.patch_embeddings.projection", "weight", "bias"), stride=14)
    tokens = torch.cat([state["embeddings.cls_token"].expand(len(images), -1, -1), patches.flatten(2).mT], dim=1)
    tokens = tokens + state["embeddings.position_embeddings"]
    for number in range(BLOCKS):
        block = f"encoder.layer.{number}"
        normed = norm(tokens, f"{block}.norm1")
        query, key, value = (
            linear(normed, *of(f"{block}.attention.attention.{part}", "weight", "bias"))
            .unflatten(2, (HEADS, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )  # fmt: skip
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        attended = linear(mixed, *of(f"{block}.attention.output.dense", "weight", "bias"))
        tokens = tokens + attended * state[f"{block}.layer_scale1.lambda1"]
        inner = gelu(linear(norm(tokens, f"{block}.norm2"), *of(f"{block}.mlp.fc1", "weight", "bias")))
        tokens = (
            tokens + linear(inner, *of(f"{block}.mlp.fc2", "weight", "bias")) * state[f"{block}.layer_scale2.lambda1"]
        )
    return norm(tokens, "layernorm")[:, 0]


@pytest.mark.slow
def test_a_grey_image_gives_what_three_equal_channels_give_there(state, weights_file):
    net = build_net("rad_dino", 3, weights_path=weights_file).eval()
    images = torch.randn(1, 1, SIDE, SIDE)
    with torch.no_grad():
        expected = encode(state, images.expand(-1, 3, -1, -1))
        torch.testing.assert_close(net.backbone(images), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.01


@pytest.mark.slow
def test_the_contract_is_that_of_the_published_preprocessing(weights_file):
    contract = build_net("rad_dino", 2, weights_path=weights_file, img_size=[28, 42]).input_contract
    assert (contract.channels, contract.size) == (1, (28, 42))
    assert (contract.mean, contract.std, contract.low, contract.high) == ((0.5307,), (0.2583,), 0.0, 1.0)


@pytest.mark.slow
def test_other_sizes_have_interpolated_position_embeddings(state, weights_file):
    net = build_net("rad_dino", 2, weights_path=weights_file, img_size=28).eval()
    assert net.backbone.pos_embed.shape == (1, 1 + 2 * 2, WIDTH)
    assert torch.equal(net.backbone.blocks[3].mlp.fc1.weight, state["encoder.layer.3.mlp.fc1.weight"])
    assert net(torch.zeros(1, 1, 28, 28)).shape == (1, 2)


def test_without_the_file_the_error_says_where_it_comes_from(tmp_path):
    message = r"got net.weights_path=null; download model.safetensors of https://huggingface.co/microsoft/rad-dino .*" \
              r"net.pretrained=false"  # fmt: skip
    with pytest.raises(WeightsError, match=message):
        build_net("rad_dino", 2)
    with pytest.raises(WeightsError, match=r"expected a weights file at .*gone.safetensors, found none"):
        build_net("rad_dino", 2, weights_path=str(tmp_path / "gone.safetensors"))


@pytest.mark.slow
def test_a_file_of_another_net_is_refused(state, tmp_path):
    path = tmp_path / "small.safetensors"
    cut = {name: tensor for name, tensor in state.items() if ".layer.11." not in name}
    safetensors.torch.save_file(cut, path)
    with pytest.raises(WeightsError, match=r"small.safetensors to hold the tensors of .*, got missing: blocks.11"):
        build_net("rad_dino", 2, weights_path=str(path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"img_size": 512},
            r"multiples of 14, got \[512, 512\]; choose preprocess.size=\[504, 504\] or \[518, 518\]",
        ),
        ({"img_size": [5, 28]}, r"got \[5, 28\]; choose preprocess.size=\[14, 28\] or \[14, 28\]"),
        ({"img_size": "big"}, "img_size to be null, a side or .*got 'big'"),
        ({"weights_path": "a.pt"}, "expected net.pretrained=true with net.weights_path, got false"),
        ({"pretrained": "no"}, "pretrained to be one of true, false, got 'no'"),
    ],
)
def test_values_outside_their_range_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_net("rad_dino", 2, **({"pretrained": False} | arguments))
