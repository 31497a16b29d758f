"""A bundle to its predictor, by its kind; what runs its nets is the caller's to choose. Knows nothing of torch."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cxr.errors import ConfigError, WeightsError
from cxr.inference.description import DESCRIPTION, described_answer, read_checked, read_description
from cxr.inference.predictor import Predictor

NET, ENSEMBLE, CLASSICAL = "net", "ensemble", "classical"
MEMBERS, NET_OF_FEATURES = "members", "net"

LoadNet = Callable[[Path, Mapping[str, Any]], Predictor]
"""A bundle of one net and its description -> predictor."""


def open_bundle(folder: Path, load_net: LoadNet) -> Predictor:
    """Make the predictor of a bundle.

    Args:
        folder: The bundle.
        load_net: Makes the predictor of a net, also of one inside another model.

    Raises:
        WeightsError: A file is missing or damaged, the format is unknown, or the predictor cannot be built from it.
        MissingExtraError: It needs an optional dependency.
    """
    description = read_description(folder)
    kind = description.get("kind", NET)
    if not isinstance(kind, str) or kind not in KINDS:
        raise WeightsError(
            f"expected {folder / DESCRIPTION} to be of kind {', '.join(KINDS)}, got {kind!r}; update cxr-lab"
        )
    try:
        return KINDS[kind](folder, description, load_net)
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"expected {folder / DESCRIPTION} to describe a predictor of this version, got: {reason}; write the "
            "bundle again"
        ) from error


def inner_bundles(description: Mapping[str, Any]) -> list[str]:
    """The folders of the whole bundles inside one, as its description tells."""
    if description.get("kind") == ENSEMBLE:
        return [f"{MEMBERS}/{number}" for number in range(description["members"])]
    has_net = description.get("kind") == CLASSICAL and description["features"]["kind"] == "embedding"
    return [NET_OF_FEATURES] if has_net else []


def _load_ensemble(folder: Path, description: Mapping[str, Any], load_net: LoadNet) -> Predictor:
    from cxr.inference.combine import Rule
    from cxr.inference.ensemble_predictor import EnsemblePredictor

    members = []
    for number in range(description["members"]):
        bundle = f"{MEMBERS}/{number}"
        read_checked(folder, f"{bundle}/{DESCRIPTION}", description)
        members.append(open_bundle(folder / bundle, load_net))
    rule = Rule(description["rule"]["name"], description["rule"]["settings"])
    return EnsemblePredictor(members=members, rule=rule, **described_answer(description))


def _load_classical(folder: Path, description: Mapping[str, Any], load_net: LoadNet) -> Predictor:
    from cxr.inference.classical_predictor import load_classical

    return load_classical(folder, description, partial(open_bundle, load_net=load_net))


KINDS: dict[str, Callable[[Path, Mapping[str, Any], LoadNet], Predictor]] = {
    NET: lambda folder, description, load_net: load_net(folder, description),
    ENSEMBLE: _load_ensemble,
    CLASSICAL: _load_classical,
}
