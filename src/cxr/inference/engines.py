"""What runs the nets of a bundle: onnxruntime or torch, which is imported for that engine alone."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cxr.errors import ConfigError, WeightsError
from cxr.inference.opening import open_bundle
from cxr.inference.predictor import Predictor
from cxr.memory import keep_freed_memory

ONNX, INT8, TORCH = "onnx", "int8", "torch"
ENGINES = (ONNX, INT8, TORCH)
GRAPHS = {ONNX: "model.onnx", INT8: "model.int8.onnx"}
"""Engine -> the file of a net's bundle that it runs."""


def open_predictor(folder: Path, engine: str | None = None, threads: int | None = None) -> Predictor:
    """Make the predictor of a bundle.

    Args:
        folder: The bundle.
        engine: One of `ENGINES`, for every net in it; None takes ``onnx`` for a net that was exported, else ``torch``.
            A model without nets is the same in all of them.
        threads: Compute threads of each net, with torch of the whole process; None is one per core.

    Raises:
        ConfigError: There is no such engine, or less than one thread.
        WeightsError: A file is missing or damaged, a net was not exported for the engine, or the predictor cannot be
            built from the bundle.
        MissingExtraError: It needs an optional dependency.
    """
    if engine is not None and engine not in ENGINES:
        raise ConfigError(f"expected one of the engines {', '.join(ENGINES)}, got {engine!r}; choose one of these")
    if threads is not None and threads < 1:
        raise ConfigError(f"expected 1 or more threads, got {threads}; leave it out for one per core")
    return open_bundle(folder, partial(_load_net, engine=engine, threads=threads))


def _load_net(folder: Path, description: Mapping[str, Any], engine: str | None, threads: int | None) -> Predictor:
    exported = description["sha256"]
    if engine is None:
        engine = ONNX if GRAPHS[ONNX] in exported else TORCH
    if engine == TORCH:
        return _load_torch(folder, description, threads)
    if GRAPHS[engine] not in exported:
        option = " --int8" if engine == INT8 else ""
        raise WeightsError(
            f"expected {GRAPHS[engine]} in {folder} for the engine {engine}, but there is none; make it by "
            f"cxr export RUN{option}, or choose another engine"
        )
    from cxr.inference.onnx_predictor import load_onnx

    return load_onnx(folder, description, GRAPHS[engine], threads)


def _load_torch(folder: Path, description: Mapping[str, Any], threads: int | None) -> Predictor:
    import torch

    from cxr.inference.bundle import load_torch

    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    return load_torch(folder, description, torch.device("cpu"))
