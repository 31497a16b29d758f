"""What is told of a model, read from its bundle. Knows nothing of HTTP, and loads no weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.errors import WeightsError
from cxr.inference.bundle_folder import bundle_version
from cxr.inference.description import DESCRIPTION, described_answer, read_checked, read_description

CARD = "model_card.md"


@dataclass(frozen=True)
class Facts:
    """A model without its weights.

    Attributes:
        name: Of its net.
        version: The first 12 hexadecimal digits of the SHA-256 of bundle.json, which holds the checksums of all else.
        answer: What `described_answer` gives.
        card: The model card, as Markdown; None where bundle.json names none.
    """

    name: str
    version: str
    answer: Mapping[str, Any]
    card: str | None

    @property
    def class_names(self) -> list[str]:
        """In order."""
        return list(self.answer["class_names"])

    def to_name(self) -> dict[str, Any]:
        """What every prediction tells of its model."""
        return {"name": self.name, "version": self.version, "class_names": self.class_names}

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain JSON values."""
        told = ("multilabel", "calibrated", "operating_point", "abstention")
        extras = self.answer["extras"]
        return {
            **self.to_name(),
            **{name: self.answer[name] for name in told},
            "metrics": extras.get("metrics"),
            "data_fingerprint": extras.get("data_fingerprint"),
            "research_use_only": True,
            "card": self.card,
        }


def read_facts(bundle: Path) -> Facts:
    """Read the facts of a bundle.

    Raises:
        WeightsError: There is none, or it is damaged.
    """
    description = read_description(bundle)
    try:
        net = description["net"]
        name = str(net.get("architecture", net["name"]))
        answer = described_answer(description)
        has_card = CARD in description["sha256"]
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"expected {bundle / DESCRIPTION} to describe a predictor, got {error!r}; write the bundle again"
        ) from error
    return Facts(name, bundle_version(bundle), answer, _read_card(bundle, description) if has_card else None)


def _read_card(bundle: Path, description: Mapping[str, Any]) -> str:
    try:
        return read_checked(bundle, CARD, description).decode()
    except UnicodeDecodeError as error:
        raise WeightsError(
            f"expected text in UTF-8 in {bundle / CARD}, got other bytes; export the run again"
        ) from error
