"""What a net costs to run: parameters, size, operations, time. Knows nothing of how good it is."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from cxr.inference.net_predictor import NetPredictor
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


@torch.inference_mode()
def measure_cost(predictor: NetPredictor, repeats: int = REPEATS) -> Cost:
    """Count and time one image of the size that the net takes.

    Args:
        predictor: Of a bundle.
        repeats: Timed passes after a few to warm up.
    """
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
