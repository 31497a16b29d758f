"""A small convolutional net whose every choice can be searched. Knows nothing of pretrained weights."""

from collections import OrderedDict

from torch import nn

from cxr.errors import ConfigError
from cxr.imaging.preprocess import InputContract
from cxr.models.arguments import check_choice, check_positive, checked_rate
from cxr.models.head import Classifier, make_activation, make_head


def build_custom_cnn(
    num_classes: int,
    *,
    in_channels: int = 1,
    filters_1: int = 16,
    filters_2: int = 32,
    filters_3: int = 64,
    filters_4: int = 128,
    kernel: int = 3,
    stride: int = 1,
    activation: str = "relu",
    batch_norm: bool = True,
    block2_drop_rate: float = 0.0,
    block4_drop_rate: float = 0.0,
    pool: int = 1,
    dense_units: int = 64,
    drop_rate: float = 0.2,
) -> Classifier:
    """Build four convolution blocks, two dense layers and three dropouts.

    A block is convolution, 2 x 2 max pooling, batch norm and activation (pooling first leaves these a quarter of the
    work). After the fourth, the feature map is averaged
    over a grid of `pool` x `pool` cells and flattened, so the dense layers fit images of any size from 32 x 32 up, and
    the parameter count does not depend on it.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of the images.
        filters_1, filters_2, filters_3, filters_4: Filters of each block.
        kernel: Side of the square kernels, odd; the input is padded by half of it.
        stride: Step of every convolution, 1 or 2; the pooling of each block halves the size once more.
        activation: Of the blocks and of the first dense layer: relu, leaky_relu, elu, gelu, silu or tanh.
        batch_norm: Normalise after every convolution (which then has no bias of its own).
        block2_drop_rate: Dropout after the second block, in [0, 1).
        block4_drop_rate: Dropout after the fourth block, in [0, 1).
        pool: Cells per side of the grid over which features are averaged; 1 is global average pooling.
        dense_units: Units of the first dense layer.
        drop_rate: Dropout between the two dense layers, in [0, 1).

    Raises:
        ConfigError: A value lies outside its range.
    """
    widths = (in_channels, filters_1, filters_2, filters_3, filters_4)
    _check_geometry(widths, kernel, stride, pool)
    check_choice("net.batch_norm", batch_norm, (True, False))
    blocks = [_block(widths[i], widths[i + 1], kernel, stride, activation, batch_norm) for i in range(4)]
    backbone = nn.Sequential(
        OrderedDict(
            block1=blocks[0],
            block2=blocks[1],
            dropout2=nn.Dropout(checked_rate("block2_drop_rate", block2_drop_rate)),
            block3=blocks[2],
            block4=blocks[3],
            dropout4=nn.Dropout(checked_rate("block4_drop_rate", block4_drop_rate)),
            pool=nn.AdaptiveAvgPool2d(pool),
            flatten=nn.Flatten(),
        )
    )
    head = make_head(filters_4 * pool * pool, num_classes, dense_units, activation, drop_rate)
    return Classifier(backbone, head, InputContract(channels=in_channels, size=None))


def _block(
    in_channels: int, filters: int, kernel: int, stride: int, activation: str, batch_norm: bool
) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, filters, kernel, stride, padding=kernel // 2, bias=not batch_norm)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    layers: OrderedDict[str, nn.Module] = OrderedDict(convolution=convolution, pool=nn.MaxPool2d(2, ceil_mode=True))
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(filters)
    layers["activation"] = make_activation(activation)
    return nn.Sequential(layers)


def _check_geometry(widths: tuple[int, ...], kernel: int, stride: int, pool: int) -> None:
    check_positive("in_channels", widths[0])
    for number, filters in enumerate(widths[1:], start=1):
        check_positive(f"filters_{number}", filters)
    check_positive("kernel", kernel)
    check_positive("pool", pool)
    if kernel % 2 == 0:
        raise ConfigError(f"expected net.kernel to be odd, got {kernel}; choose {kernel - 1} or {kernel + 1}")
    check_choice("net.stride", stride, (1, 2))
