"""The folder that leaves a training run, and the predictor that is made of it.

A bundle is ``bundle.json`` and the files that its kind needs; a net's are ``model.safetensors`` and maybe
``outliers.safetensors``, an ensemble's are whole bundles in ``members/<number>/``, and a classical model's are those of
`cxr.inference.classical_predictor`. Nothing in it is pickled, loading runs no code from it: a net is named by a key of
`cxr.models.build.BUILDERS`, never by a dotted path, and no weights but its own are read. Knows nothing of training,
configs, or how images are labelled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

from cxr.errors import ConfigError
from cxr.imaging.preprocess import InputContract, Preprocess
from cxr.inference.combine import Rule
from cxr.inference.description import describe_scaling, described_answer, read_files, write_folder
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.opening import ENSEMBLE, MEMBERS, NET, open_bundle
from cxr.inference.outliers import OutlierScorer
from cxr.inference.predictor import Predictor
from cxr.inference.tensors import OUTLIERS, read_outliers, read_tensors
from cxr.models.build import build_net, without_weights
from cxr.models.views import SeveralViews
from cxr.models.weights import load_into
from cxr.scaling import Scaling

MODEL = "model.safetensors"


@dataclass(frozen=True)
class Fitted:
    """What was learnt beside the net.

    Attributes:
        scaling: Fitted on validation; None where there is none, so that a probability is no frequency.
        operating_point: Chosen on validation; of a multi-label net target -> operating point.
        abstention: From which confidence on an answer is given, chosen on validation; None where none was chosen.
        outliers: Fitted on training images.
    """

    scaling: Scaling | None = None
    operating_point: Mapping[str, Any] | None = None
    abstention: Mapping[str, Any] | None = None
    outliers: OutlierScorer | None = None


def write_bundle(
    folder: Path,
    net: nn.Module,
    net_config: Mapping[str, Any],
    class_names: list[str],
    preprocess: Preprocess,
    extras: Mapping[str, Any],
    multilabel: bool = False,
    fitted: Fitted | None = None,
) -> None:
    """Write the bundle of a net, prove that it loads, and only then put it in place of an older one.

    Args:
        folder: The bundle to make; the folder above exists.
        net: The trained net of `build_net`, with its `input_contract`, maybe as `SeveralViews`.
        net_config: ``name`` and the plain arguments of `build_net`. Weights that it asks for are left out.
        class_names: The K names in order.
        preprocess: The completed preprocessing that the net was trained with.
        extras: Plain values about the run: data fingerprint, versions, metrics, monitor. NaN and infinity become null.
        multilabel: Whether the K answers are independent of each other.
        fitted: What was learnt beside the net.

    Raises:
        ConfigError: A value is not plain, or net and preprocessing do not fit.
        WeightsError: The net is not the one that `net_config` describes.
    """
    contract = net.input_contract
    if not isinstance(contract, InputContract):
        raise ConfigError(f"expected a net with an InputContract, got {type(contract).__name__}; make it by build_net")
    contract.check(preprocess, str(net_config["name"]))
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in net.state_dict().items()}
    beside = Fitted() if fitted is None else fitted
    files = {MODEL: safetensors.torch.save(state)}
    if beside.outliers is not None:
        files[OUTLIERS] = safetensors.numpy.save(beside.outliers.to_arrays())
    description = {
        "kind": NET,
        "net": without_weights(net_config),
        "tta": net.views if isinstance(net, SeveralViews) else None,
        "preprocess": preprocess.to_dict(),
        "input_contract": asdict(contract),
        **describe_answer(class_names, multilabel, beside, extras),
    }
    write_folder(folder, description, files, prove=load_bundle)


def write_ensemble(
    folder: Path,
    members: Sequence[Path],
    rule: Rule,
    class_names: list[str],
    extras: Mapping[str, Any],
    fitted: Fitted | None = None,
) -> None:
    """Write the bundle of an ensemble: whole bundles of its members and the rule that combines them.

    Args:
        folder: The bundle to make; the folder above exists.
        members: Bundles of any kind.
        rule: What makes one table of theirs.
        class_names: The K names in order.
        extras: Plain values about the ensemble. NaN and infinity become null.
        fitted: Temperature, operating point and abstention.

    Raises:
        ConfigError: A value is not plain.
        WeightsError: A member's bundle is damaged, or the rule cannot combine them.
    """
    files = {
        f"{MEMBERS}/{number}/{name}": content
        for number, bundle in enumerate(members)
        for name, content in read_files(bundle).items()
    }
    description = {
        "kind": ENSEMBLE,
        "net": {"name": f"ensemble of {len(members)}", "rule": rule.name},
        "rule": {"name": rule.name, "settings": rule.settings},
        "members": len(members),
        **describe_answer(class_names, False, Fitted() if fitted is None else fitted, extras),
    }
    write_folder(folder, description, files, prove=load_bundle)


def describe_answer(
    class_names: list[str], multilabel: bool, fitted: Fitted, extras: Mapping[str, Any]
) -> dict[str, Any]:
    """What every bundle says of its probabilities, as `described_answer` reads it."""
    return {
        "class_names": class_names,
        "multilabel": multilabel,
        **describe_scaling(fitted.scaling),
        "operating_point": fitted.operating_point,
        "abstention": fitted.abstention,
        "extras": extras,
    }


def load_bundle(folder: Path, device: str | torch.device = "cpu") -> Predictor:
    """Make the predictor of a bundle.

    Args:
        folder: What `write_bundle` wrote.
        device: Where to put nets.

    Raises:
        WeightsError: A file is missing or damaged, the format is unknown, or the predictor cannot be built from it.
        MissingExtraError: It needs an optional dependency.
    """
    return open_bundle(folder, partial(load_torch, device=torch.device(device)))


def load_net(folder: Path, device: str | torch.device = "cpu") -> NetPredictor:
    """Make the predictor of a bundle that is one net, for those who look inside.

    Raises:
        ConfigError: It is of another kind.
        WeightsError, MissingExtraError: As of `load_bundle`.
    """
    predictor = load_bundle(folder, device)
    if not isinstance(predictor, NetPredictor):
        raise ConfigError(f"expected {folder} to be the bundle of one net, got another kind; give a training run's")
    return predictor


def load_torch(folder: Path, description: Mapping[str, Any], device: torch.device) -> NetPredictor:
    """Make the predictor of a net's bundle.

    Args:
        folder: The bundle.
        description: Its ``bundle.json``.
        device: Where to put the net.

    Raises:
        ConfigError, TypeError, ValueError, KeyError: The description is of no net.
        WeightsError: A file is missing or damaged.
        MissingExtraError: The net needs an optional dependency.
    """
    state = read_tensors(folder, MODEL, description, safetensors.torch.load)
    arguments = without_weights(description["net"])
    name = arguments.pop("name")
    net = build_net(name, len(description["class_names"]), **arguments)
    if description.get("tta") is not None:
        net = SeveralViews(net, description["tta"], description["multilabel"] is True)
    preprocess = Preprocess.from_dict(description["preprocess"])
    contract = _to_contract(description["input_contract"])
    contract.check(preprocess, name)
    predictor = NetPredictor(
        net=net.eval().to(device),
        preprocess=preprocess,
        outliers=read_outliers(folder, description),
        device=device,
        **described_answer(description),
    )
    net.input_contract = contract
    load_into(net, state, str(folder / MODEL))
    return predictor


def _to_contract(values: Mapping[str, Any]) -> InputContract:
    arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return InputContract(**arguments)
