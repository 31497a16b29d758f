"""Weights files: read without running code from them, convert once, fit into a net. Knows nothing of any architecture.

A file that torch wrote is always read with `weights_only=True`; nothing here unpickles freely. Where a file holds a
whole module, a class without any code stands for each of its classes, since a file may also call what it may name. It
does not guarantee that the numbers in a file are good, only that they have the names and shapes of the net.
"""

import hashlib
import io
import logging
import os
import pickletools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from cxr.errors import WeightsError

logger = logging.getLogger(__name__)

State = dict[str, torch.Tensor]
Opcode = tuple[str, Any, bytes]
"""Name, argument and bytes of one pickle instruction."""


class _Inert:
    """Stands for a class that a file names: takes the attributes that the file gives it, and can do nothing."""


def read_state(path: Path, classes: Sequence[str] = ()) -> State:
    """Read the named tensors of a weights file onto the CPU.

    Args:
        path: A `.safetensors` file, or one that `torch.save` wrote: a dictionary of tensors, the same under the key
            "state_dict", or a whole module of `classes`.
        classes: Full names of the classes of modules that the file may hold; none of them is imported or called.

    Raises:
        WeightsError: The file is absent, damaged, or holds anything else.
    """
    if not path.is_file():
        raise WeightsError(f"expected a weights file at {path}, found none; put it there or correct the path")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return _named_tensors(_load_restricted(path.read_bytes(), classes))
    except Exception as error:  # a damaged file can fail anywhere in its parser
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"expected {path} to hold tensors by name, but it cannot be read safely ({reason}); download it again"
        ) from error


def read_converted(path: Path, classes: Sequence[str] = ()) -> State:
    """Read a file that torch wrote, the first time only: a safetensors copy beside it serves from then on.

    The copy `<path>.safetensors` records the SHA-256 of its source and is made anew when that differs. It also serves
    alone, when the source has been removed. Arguments and errors as for `read_state`.
    """
    copy = path.with_name(f"{path.name}.safetensors")
    if path.suffix == ".safetensors" or not (path.is_file() or copy.is_file()):
        return read_state(path)
    if not path.is_file():
        return read_state(copy)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if _source_digest(copy) == digest:
        return read_state(copy)
    state = read_state(path, classes)
    _write_copy(copy, state, digest)
    return state


def load_into(net: nn.Module, state: State, source: str) -> None:
    """Load every tensor of `state` into `net`; WeightsError names what is missing, left over or of another shape."""
    expected = net.state_dict()
    counters = [name for name in expected if name.endswith("num_batches_tracked")]  # older files lack them
    problems = {
        "missing": [name for name in expected if name not in state and name not in counters],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    if any(problems.values()):
        report = "; ".join(f"{what}: {_shorten(names)}" for what, names in problems.items() if names)
        raise WeightsError(f"expected {source} to hold the tensors of this net, got {report}; choose its own weights")
    net.load_state_dict({name: state.get(name, tensor) for name, tensor in expected.items()})


def subtree(state: State, prefix: str) -> State:
    """Return the tensors below `prefix`, without it: ``subtree(state, "features.")``."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _shorten(names: list[str], limit: int = 5) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _named_tensors(content: Any) -> State:
    state = _module_entries(content) if isinstance(content, _Inert) else content.get("state_dict", content)
    strangers = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if strangers:
        raise ValueError(f"not tensors: {_shorten(strangers)}")
    return {name: tensor.detach() for name, tensor in state.items()}


def _module_entries(module: _Inert, prefix: str = "") -> dict[str, Any]:
    """The parameters and buffers of what was a module when it was saved, by the names that its state had."""
    own = {**vars(module)["_parameters"], **vars(module)["_buffers"]}
    state = {prefix + name: value for name, value in own.items() if value is not None}
    for name, child in vars(module)["_modules"].items():
        state |= _module_entries(child, f"{prefix}{name}.")
    return state


def _load_restricted(content: bytes, classes: Sequence[str]) -> Any:
    if classes and not content.startswith(b"PK"):
        content = _without_source_records(content)
    with torch.serialization.safe_globals([set, *((_Inert, name) for name in classes)]):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _without_source_records(content: bytes) -> bytes:
    """Rewrite a whole module that torch before 1.6 saved, so that `weights_only=True` can read it.

    There, the first mention of each module class is a persistent record ("module", class, file, source text), which the
    restricted reader refuses; the class alone is what the newer format holds. Nothing is executed: the instructions are
    only listed. A file consists of four pickles (magic number, protocol, system, object) and the raw numbers.
    """
    stream = io.BytesIO(content)
    for _ in range(3):
        list(pickletools.genops(stream))
    start = stream.tell()
    found = [(opcode.name, argument, position) for opcode, argument, position in pickletools.genops(stream)]
    ends = [position for _, _, position in found[1:]] + [stream.tell()]
    opcodes = [(name, argument, content[at:end]) for (name, argument, at), end in zip(found, ends, strict=True)]
    return content[:start] + b"".join(raw for _, _, raw in _plain_classes(opcodes)) + content[stream.tell() :]


def _plain_classes(opcodes: list[Opcode]) -> list[Opcode]:
    kept: list[Opcode] = []
    word_slot = None  # where the first record puts the word "module", for the later ones to get
    for opcode in opcodes:
        if opcode[0] != "BINPERSID":
            kept.append(opcode)
            continue
        mark = next(i for i in reversed(range(len(kept))) if kept[i][0] == "MARK")
        record = kept[mark:]
        if record[1][:2] == ("BINUNICODE", "module"):
            word_slot = record[2][1]
        elif record[1][0] not in ("BINGET", "LONG_BINGET") or record[1][1] != word_slot:
            kept.append(opcode)
            continue
        named = next(i for i, entry in enumerate(record) if entry[0] == "GLOBAL")
        kept[mark:] = record[named : named + 2]  # the class and its place in the memo
    return kept


def _source_digest(copy: Path) -> str | None:
    if not copy.is_file():
        return None
    try:
        with safetensors.safe_open(copy, framework="pt") as stream:
            metadata: dict[str, str] | None = stream.metadata()
    except safetensors.SafetensorError:
        return None
    return None if metadata is None else metadata.get("source_sha256")


def _write_copy(copy: Path, state: State, digest: str) -> None:
    part = copy.with_name(f"{copy.name}.{os.getpid()}.part")
    tensors = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    try:
        part.write_bytes(safetensors.torch.save(tensors, metadata={"source_sha256": digest}))
        part.replace(copy)
    except OSError as error:
        logger.warning("cannot keep the converted weights %s (%s); they will be converted again", copy, error)
        part.unlink(missing_ok=True)
