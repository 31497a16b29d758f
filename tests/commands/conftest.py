"""A run that several commands are tried on."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.training.fit import fit


@pytest.fixture(scope="session")
def targets_run(compose_run, tmp_path_factory):
    """A run with two targets per image, on bright squares."""
    folder = tmp_path_factory.mktemp("targets")
    draws = np.random.default_rng(0)
    rows = []
    for number in range(96):
        left, right = draws.integers(0, 2, 2)
        pixels = draws.integers(0, 120, (32, 32))
        pixels[12:20, 4:12] += 130 * left
        pixels[12:20, 20:28] += 130 * right
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append({"path": f"{number}.png", "left side": left, "right side": right})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    own = ["data=table", f"data.path={folder}/table.csv", "data.root=null", "data.targets=[left side,right side]",
           "data.columns.finding=null", "loss=masked_bce", "sampler=none"]  # fmt: skip
    fit(compose_run(folder / "run", *own, without=("data.cohort",)))
    return folder / "run"
