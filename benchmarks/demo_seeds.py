"""How good the demo's model is: AUROC of several seeds on one large phantom test set, beside the best achievable one.

python benchmarks/demo_seeds.py --seeds 0 1 2 3 4 --test-studies 2000
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from cxr.data.file_index import FileIndex
from cxr.data.phantoms.ceiling import best_achievable_auroc
from cxr.data.readers import make_phantom_samples
from cxr.data.views import filter_views
from cxr.entry import prepare_environment
from cxr.inference.bundle import load_bundle
from cxr.training.fit import fit

ROOT = Path(__file__).parents[1]


def compose_demo(folder: Path, seed: int) -> DictConfig:
    """The demo's config with its folders below `folder`."""
    overrides = ["experiment=demo", f"seed={seed}", "callbacks=quiet", "test=false", f"paths.log_dir={folder}",
                 f"paths.data_dir={folder}/data", f"paths.cache_dir={folder}/cache", f"run_name=seed{seed}",
                 f"paths.output_dir={folder}/seed{seed}"]  # fmt: skip
    with initialize_config_dir(str(ROOT / "configs")):
        config = compose("train", overrides)
    OmegaConf.resolve(config)
    return config


def make_test_set(folder: Path, config: DictConfig, studies: int) -> pd.DataFrame:
    """Frontal images of a cohort that no run trains on."""
    cohort = {**OmegaConf.to_container(config.data.cohort), "studies": studies, "seed": 12345}
    samples = make_phantom_samples(folder / "test", cohort=cohort)
    header = FileIndex(folder / "index.sqlite").describe(samples["image_path"].tolist()).set_index(samples.index)
    columns = [name for name in header if name not in samples]
    samples = samples.join(header[columns])
    frontal, _ = filter_views(samples, "frontal")
    return frontal


def main() -> None:
    """Train, predict, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--test-studies", type=int, default=2000)
    options = parser.parse_args()
    prepare_environment()
    table = Table("seed", "AUROC", "training, s", title="demo on phantoms (synthetic: not clinical)")
    scores = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        test = make_test_set(folder, compose_demo(folder, 0), options.test_studies)
        positive = test["finding"] != "Negative for Pneumonia"
        for seed in options.seeds:
            started = time.perf_counter()
            result = fit(compose_demo(folder, seed))
            seconds = time.perf_counter() - started
            predicted = load_bundle(result.run_dir / "bundle").predict(test["image_path"].tolist(), batch_size=64)
            scores.append(roc_auc_score(positive, predicted["prob_1"]))
            table.add_row(str(seed), f"{scores[-1]:.4f}", f"{seconds:.0f}")
    table.add_row("mean, SD", f"{np.mean(scores):.4f}, {np.std(scores, ddof=1):.4f}" if len(scores) > 1 else "", "")
    console = Console()
    console.print(table)
    console.print(f"best achievable on these {len(test)} images: {best_achievable_auroc(test, positive):.4f}")


if __name__ == "__main__":
    main()
