"""An ONNX graph to something that can be run. Knows nothing of what the graph is for; imports no torch."""

from collections.abc import Sequence
from typing import Any

from cxr.errors import WeightsError, require_extra


def open_session(content: bytes, inputs: Sequence[str], outputs: Sequence[str], threads: int | None, extra: str) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        content: The graph.
        inputs: The names of its inputs.
        outputs: Names that are among those of its outputs.
        threads: Compute threads, 1 or more; None is one per core.
        extra: Which extra of this package brings onnxruntime.

    Raises:
        WeightsError: It is no such graph.
        MissingExtraError: onnxruntime is not installed.
    """
    require_extra("onnxruntime", extra)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an error class for each status, all plain Exceptions
        reason = " ".join(str(error).split())
        raise WeightsError(f"expected an ONNX model, got: {reason}; write the bundle again") from error
    names = [one.name for one in session.get_inputs()], [one.name for one in session.get_outputs()]
    if names[0] != list(inputs) or not set(outputs) <= set(names[1]):
        raise WeightsError(
            f"expected an ONNX model from {', '.join(inputs)} to {', '.join(outputs)}, got one from {names[0]} to "
            f"{names[1]}; write the bundle again"
        )
    return session
