"""What runs the nets of a bundle. Imports torch only for that engine."""

from pathlib import Path

from cxr.inference.predictor import Predictor

TORCH = "torch"


def open_predictor(folder: Path, engine: str | None = None) -> Predictor:
    """Make the predictor of a bundle.

    Args:
        folder: The bundle.
        engine: What runs its nets.

    Raises:
        WeightsError: A file is missing or damaged, or the predictor cannot be built from it.
        MissingExtraError: It needs an optional dependency.
    """
    assert engine in (None, TORCH)
    from cxr.inference.bundle import load_bundle

    return load_bundle(folder)
