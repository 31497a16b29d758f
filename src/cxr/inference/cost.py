"""What a model costs to run: parameters, size, operations, time. Knows nothing of how good it is."""

import statistics
import time
from dataclasses import astuple, dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from cxr.errors import ConfigError
from cxr.inference.ensemble_predictor import list_members
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.predictor import Predictor
from cxr.models.build import count_parameters

REPEATS = 20
_WARM_UP = 3


@dataclass(frozen=True)
class Cost:
    """The cost of one image.

    Attributes:
        parameters: Number of weights.
        megabytes: Of all weights and buffers as stored, in 10^6 bytes.
        gflops: Floating-point operations of one image in 10^9; a multiplication and its addition are two.
        latency_ms: Median time of one image through the net, on the device of the predictor.
    """

    parameters: int
    megabytes: float
    gflops: float
    latency_ms: float


def has_cost(predictor: Predictor) -> bool:
    """Whether it, or every member of it, is a net; operations of other models are not counted."""
    return all(isinstance(member, NetPredictor) for member in list_members(predictor))


def measure_cost(predictor: Predictor, repeats: int = REPEATS) -> Cost:
    """Count and time one image; an ensemble costs what its members cost together.

    Args:
        predictor: Of a bundle.
        repeats: Timed passes after a few to warm up.

    Raises:
        ConfigError: It is, or has, a model of another kind, see `has_cost`.
    """
    costs = [_measure_net(member, repeats) for member in list_members(predictor)]
    return Cost(*(sum(values) for values in zip(*(astuple(cost) for cost in costs), strict=True)))


@torch.inference_mode()
def _measure_net(predictor: Predictor, repeats: int) -> Cost:
    if not isinstance(predictor, NetPredictor):
        raise ConfigError("expected nets to measure the cost of, got a model of another kind; leave it out")
    net, preprocess = predictor.net, predictor.preprocess
    image = torch.zeros(1, preprocess.channels, *preprocess.size, device=predictor.device)
    with FlopCounterMode(display=False) as counter:
        net(image)
    times = [_time_pass(predictor, image) for _ in range(_WARM_UP + repeats)][_WARM_UP:]
    tensors = net.state_dict().values()
    return Cost(
        parameters=count_parameters(net)["total"],
        megabytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6,
        gflops=counter.get_total_flops() / 1e9,
        latency_ms=1e3 * statistics.median(times),
    )


def _time_pass(predictor: NetPredictor, image: torch.Tensor) -> float:
    started = time.perf_counter()
    predictor.net(image)
    if predictor.device.type == "cuda":
        torch.cuda.synchronize(predictor.device)
    return time.perf_counter() - started
