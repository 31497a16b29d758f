"""A bundle as it leaves for use: the same files, and beside every net in it the graphs that onnxruntime runs.

Knows nothing of runs, of image files, or of what a graph must be worth.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cxr.errors import ConfigError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import load_net
from cxr.inference.bundle_folder import EXPORT
from cxr.inference.description import DESCRIPTION, read_files, to_content, write_folder
from cxr.inference.engines import GRAPHS, INT8, ONNX, open_predictor
from cxr.inference.onnx_graph import make_graph
from cxr.inference.onnx_int8 import Images, quantise
from cxr.inference.opening import NET, inner_bundles
from cxr.models.head import Classifier

MOBILE, CARD = "mobile.onnx", "model_card.md"
MODULES = ("cxr-lab", "torch", "onnx", "onnxruntime")

Files = dict[str, bytes]
"""Name in the bundle -> content, ``bundle.json`` too."""


def read_with_graphs(bundle: Path) -> Files:
    """The files of a bundle with the graph of every net in it; graphs that were made earlier are not kept.

    Raises:
        WeightsError: A file is missing or damaged.
        MissingExtraError: What exports is not installed.
    """
    files = read_files(bundle)
    made = {MOBILE, *(f"{net}{graph}" for net in find_nets(files) for graph in GRAPHS.values())}
    files = {name: content for name, content in files.items() if name not in made}
    for place in find_nets(files):
        predictor = load_net(bundle / place)
        assert isinstance(predictor.net, Classifier)  # what a bundle's net is made by
        files[f"{place}{GRAPHS[ONNX]}"] = make_graph(predictor.net, predictor.preprocess)
    return files


def add_int8(files: Mapping[str, bytes], calibrate: Callable[[Preprocess], Iterable[Images]]) -> Files:
    """The files with the integer graph of every net.

    Args:
        files: Of `read_with_graphs`.
        calibrate: Training images as a net takes them, in batches (B, C, H, W), by the preprocessing of the net.

    Raises:
        ConfigError: There is no net.
    """
    nets = find_nets(files)
    if not nets:
        raise ConfigError("expected a model with a net for --int8, got one without; leave it out")
    added = dict(files)
    for place in nets:
        preprocess = Preprocess.from_dict(json.loads(files[f"{place}{DESCRIPTION}"])["preprocess"])
        added[f"{place}{GRAPHS[INT8]}"] = quantise(files[f"{place}{GRAPHS[ONNX]}"], calibrate(preprocess))
    return added


def write_exported(files: Mapping[str, bytes], folder: Path, export: Mapping[str, Any]) -> None:
    """Write a bundle whose files have changed, prove that it loads, and only then put it in place of an older one.

    Args:
        files: Checksums are made anew, in the bundles inside too.
        folder: The bundle to make; the folder above exists.
        export: What was measured and of which bundle, as plain values; versions are added.
    """
    sealed = _seal(files)
    versions = {name: version(name) for name in MODULES}
    description = json.loads(sealed.pop(DESCRIPTION)) | {EXPORT: {"versions": versions, **export}}
    write_folder(folder, description, sealed, prove=open_predictor)


def find_nets(files: Mapping[str, bytes]) -> list[str]:
    """Where the bundles of single nets lie: ``""``, or the beginnings of their files' names, such as ``members/0/``."""
    description = json.loads(files[DESCRIPTION])
    if description.get("kind", NET) == NET:
        return [""]
    inner = inner_bundles(description)
    return [f"{place}/{net}" for place in inner for net in find_nets(_inside(files, place))]


def _seal(files: Mapping[str, bytes]) -> Files:
    description = json.loads(files[DESCRIPTION])
    rest = {name: content for name, content in files.items() if name != DESCRIPTION}
    for place in inner_bundles(description):
        rest |= {f"{place}/{name}": content for name, content in _seal(_inside(files, place)).items()}
    return {DESCRIPTION: to_content(description, rest), **rest}


def _inside(files: Mapping[str, bytes], place: str) -> Files:
    """The files of the bundle in a folder of a bundle."""
    start = f"{place}/"
    return {name.removeprefix(start): content for name, content in files.items() if name.startswith(start)}
