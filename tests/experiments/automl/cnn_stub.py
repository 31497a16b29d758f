"""A train.py of a second: writes the predictions and the bundle that a run on its split would leave.

A file ``behaviour.txt`` with the word ``fail`` in the working folder makes it fail.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxr.evaluation.predictions import make_predictions, write_predictions
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import write_bundle
from cxr.models.build import build_net

NET = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}


def main() -> None:
    if Path("behaviour.txt").exists():
        sys.exit("error: the loss is nan")
    words = {key: value.strip("'") for key, _, value in (one.partition("=") for one in sys.argv[1:])}
    run = Path(words["hydra.run.dir"])
    run.mkdir(parents=True, exist_ok=True)
    (run / "words.json").write_text(json.dumps(sys.argv[1:]))
    threads = {"OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"], "torch": torch.get_num_threads()}
    (run / "threads.json").write_text(json.dumps(threads))
    split = pd.read_csv(words["data.split_file"], dtype={"sample_id": str, "patient_id": str})
    classes = split.drop_duplicates("label").sort_values("label")["class"].tolist()
    rows = split[split["split"] == "test"].sample(frac=1, random_state=0)
    logits = np.random.default_rng(0).normal(rows["label"].to_numpy()[:, None] * np.array([[-1.0, 1.0]]), 1.0)
    write_predictions(make_predictions(rows, logits, classes, "test", "stub"), classes, run / "predictions_test.csv")
    torch.manual_seed(0)
    net = build_net(num_classes=2, **NET).eval()
    write_bundle(run / "bundle", net, NET, classes, Preprocess(size=(32, 32)), {})


if __name__ == "__main__":
    main()
