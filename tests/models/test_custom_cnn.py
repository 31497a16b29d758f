import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.errors import ConfigError
from cxr.models.build import build_net, count_parameters


def test_parameter_count_by_hand():
    """Blocks 1 -> 4 -> 6 -> 8 -> 10 filters with 3 x 3 kernels; 2 x 2 grid; dense 5; 3 classes."""
    net = build_net(
        "custom_cnn", 3, filters_1=4, filters_2=6, filters_3=8, filters_4=10, kernel=3, pool=2, dense_units=5
    )
    convolutions = 9 * (1 * 4 + 4 * 6 + 6 * 8 + 8 * 10)
    norms = 2 * (4 + 6 + 8 + 10)
    dense = (10 * 2 * 2 + 1) * 5 + (5 + 1) * 3
    assert count_parameters(net)["total"] == convolutions + norms + dense == 1683


def test_parameter_count_by_hand_without_batch_norm():
    net = build_net(
        "custom_cnn",
        2,
        in_channels=3,
        filters_1=2,
        filters_2=2,
        filters_3=2,
        filters_4=2,
        kernel=5,
        batch_norm=False,
        pool=1,
        dense_units=4,
    )
    convolutions = 25 * (3 * 2 + 2 * 2 + 2 * 2 + 2 * 2) + 4 * 2
    assert count_parameters(net)["total"] == convolutions + (2 + 1) * 4 + (4 + 1) * 2 == 480


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(32, 70),
    width=st.integers(32, 70),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    activation=st.sampled_from(["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"]),
    pool=st.integers(1, 4),
)
def test_any_size_and_every_choice_gives_k_finite_logits(height, width, kernel, stride, activation, pool):
    net = build_net(
        "custom_cnn",
        3,
        filters_1=2,
        filters_2=2,
        filters_3=2,
        filters_4=2,
        kernel=kernel,
        stride=stride,
        activation=activation,
        pool=pool,
    )
    logits = net(torch.rand(2, 1, height, width))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


def test_the_three_dropouts_are_where_they_are_said_to_be():
    net = build_net("custom_cnn", 2, block2_drop_rate=0.1, block4_drop_rate=0.2, drop_rate=0.3)
    rates = [module.p for module in net.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates == [0.1, 0.2, 0.3]
    names = list(net.backbone._modules)
    assert names.index("dropout2") == names.index("block2") + 1
    assert names.index("dropout4") == names.index("block4") + 1
    assert list(net.head._modules) == ["hidden", "activation", "dropout", "output"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 4}, "expected net.kernel to be odd, got 4; choose 3 or 5"),
        ({"kernel": 0}, "expected net.kernel to be a whole number above 0, got 0"),
        ({"stride": 3}, "expected net.stride to be one of 1, 2, got 3"),
        ({"pool": 0}, "expected net.pool to be a whole number above 0, got 0"),
        ({"in_channels": 0}, "expected net.in_channels to be a whole number above 0, got 0"),
        ({"filters_3": 2.5}, "expected net.filters_3 to be a whole number above 0, got 2.5"),
        ({"activation": "swosh"}, "expected an activation to be one of relu, .*got 'swosh'"),
        ({"block2_drop_rate": 1.0}, "expected net.block2_drop_rate to be at least 0 and below 1, got 1.0"),
        ({"drop_rate": -0.1}, "expected net.head.dropout to be at least 0 and below 1, got -0.1"),
        ({"dense_units": 0}, "expected net.head.hidden to be a whole number above 0, got 0"),
    ],
)
def test_values_outside_their_range_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_net("custom_cnn", 2, **arguments)


def test_it_can_learn_eight_images_by_heart():
    torch.manual_seed(0)
    net = build_net("custom_cnn", 2, drop_rate=0.0)
    images, labels = torch.rand(8, 1, 32, 32), torch.arange(8) % 2
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
