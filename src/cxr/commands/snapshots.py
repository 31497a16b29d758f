"""The kept checkpoints of one run -> run folders, so that they can be members of an ensemble (Huang et al. 2017)."""

import shutil
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from cxr.commands.run_images import find_images, read_config
from cxr.data.splits import SPLIT_FILE
from cxr.errors import DataError
from cxr.evaluation.predictions import make_predictions, read_predictions, write_predictions
from cxr.inference.bundle import load_bundle
from cxr.inference.combine import to_logits
from cxr.inference.snapshot import write_snapshot

OF_THE_RUN = ("config.yaml", "environment.txt", "data_report.json", SPLIT_FILE)


def make_snapshots(run: Path, place: Path) -> list[Path]:
    """Write a run folder for each checkpoint that a run kept for its score, with predictions of val and test.

    Args:
        run: The run folder; its data are where its config says.
        place: Where; the folder is made.

    Returns:
        The folders, by the names of the checkpoints.

    Raises:
        DataError: The run kept fewer than two, or its images are not there.
    """
    config = read_config(run, [])
    checkpoints = sorted((run / "checkpoints").glob("epoch*.ckpt"))
    if len(checkpoints) < 2:
        raise DataError(
            f"expected two or more kept checkpoints in {run / 'checkpoints'}, got {len(checkpoints)}; train with "
            "callbacks.checkpoint.save_top_k=5"
        )
    return [_make_snapshot(run, config, checkpoint, place / checkpoint.stem) for checkpoint in checkpoints]


def _make_snapshot(run: Path, config: DictConfig, checkpoint: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in OF_THE_RUN:
        shutil.copyfile(run / name, folder / name)
    write_snapshot(run / "bundle", checkpoint, folder / "bundle")
    for part in ("val", "test"):
        if (run / f"predictions_{part}.csv").exists():
            _predict(run, config, part, folder)
    return folder


def _predict(run: Path, config: DictConfig, part: str, folder: Path) -> None:
    """The rows of a part as the snapshot sees them."""
    name = f"predictions_{part}.csv"
    table, class_names = read_predictions(run / name)
    paths = find_images(config, table)["image_path"].tolist()
    predicted = load_bundle(folder / "bundle").predict(paths)
    probs = predicted[[f"prob_{k}" for k in range(len(class_names))]].to_numpy(np.float64)
    rows = table.rename(columns={"target": "label"})
    write_predictions(make_predictions(rows, to_logits(probs), class_names, part, folder.name), class_names,
                      folder / name)  # fmt: skip
