"""Another state of a run's net as a bundle of its own. Knows nothing of how the state came about."""

from pathlib import Path

import torch

from cxr.errors import WeightsError
from cxr.inference.bundle import Fitted, load_net, write_bundle
from cxr.inference.description import read_description
from cxr.models.weights import load_into, subtree


def write_snapshot(bundle: Path, checkpoint: Path, folder: Path) -> None:
    """Write the bundle of a checkpoint; it has no scaling, since that of the run belongs to another state.

    Args:
        bundle: Of the run that kept the checkpoint.
        checkpoint: A file that training wrote; only tensors and plain values are read from it.
        folder: The bundle to make; the folder above exists.

    Raises:
        WeightsError: The checkpoint is damaged, or of another net.
        ConfigError: The bundle is of another kind than one net.
    """
    predictor, net_config = load_net(bundle), read_description(bundle)["net"]
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # a damaged file makes torch raise nearly any type
        raise WeightsError(f"expected a checkpoint of the run in {checkpoint}, got none; leave it out") from error
    load_into(predictor.net, subtree(state, "net."), str(checkpoint))
    fitted = Fitted(outliers=predictor.outliers)
    write_bundle(folder, predictor.net, net_config, predictor.class_names, predictor.preprocess, predictor.extras,
                 multilabel=predictor.multilabel, fitted=fitted)  # fmt: skip
