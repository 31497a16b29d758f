"""What train.py and run.py share: the environment before a config is composed, and errors told in one sentence.

Imports neither torch nor Lightning, so that ``--help`` and a mistyped key answer at once.
"""

import os
import sys
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import TypeVar

from dotenv import load_dotenv
from omegaconf import OmegaConf

from cxr.errors import NO_SPACE, CxrError
from cxr.training.config_rules import LAST

Result = TypeVar("Result")
FULL_DISK = (
    "free some, or move the folders with CXR_LOG_DIR and CXR_CACHE_DIR; what was saved before is intact, continue "
    "with ckpt_path=<run>/checkpoints/last.ckpt"
)


def prepare_environment() -> None:
    """Read ``.env`` from the working folder and register the resolvers that the configs use; call it before torch.

    Compute threads that wait for each other sleep instead of spinning, unless OMP_WAIT_POLICY says otherwise: beside
    another busy program, spinning threads keep the one they wait for from its core.
    """
    load_dotenv(Path.cwd() / ".env")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    OmegaConf.register_resolver("run_dir", run_dir, replace=True, use_cache=True)  # one folder for all devices
    OmegaConf.register_resolver("plan_dir", plan_dir, replace=True, use_cache=True)
    OmegaConf.register_resolver("has_env", lambda name: name in os.environ, replace=True)


def run_dir(ckpt_path: str | None, log_dir: str, run_name: str) -> str:
    """The folder of the run that `ckpt_path` belongs to, or a new one named by recipe and launch.

    Args:
        ckpt_path: ``<run>/checkpoints/<name>.ckpt`` of a run to continue, ``last``, or None.
        log_dir: Folder of all runs.
        run_name: Name of the recipe.
    """
    if ckpt_path is not None and ckpt_path != LAST:
        owner = Path(ckpt_path).absolute().parent.parent
        if (owner / "config.yaml").exists():
            return str(owner)
    return f"{log_dir}/runs/{run_name}/{launch_name()}"


def launch_name() -> str:
    """What all processes of one launch call its run, also after a restart: the id of torchrun or SLURM, else the time.

    A torchrun without ``--standalone`` or ``--rdzv-id`` has no id; its processes find out that their folders differ.
    """
    elastic = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if elastic != "none":
        return f"torchrun-{elastic}"
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return f"slurm-{os.environ['SLURM_JOB_ID']}.{os.environ['SLURM_STEP_ID']}"
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"


def plan_dir(folder: str | None, log_dir: str, run_name: str) -> str:
    """The folder of a plan that is continued, or a new one named by recipe and time.

    Args:
        folder: ``plan.folder``; one that holds no plan is not touched, the plan refuses it.
        log_dir: Folder of all runs.
        run_name: Name of the recipe.
    """
    if folder is not None and (Path(str(folder)) / "plan.yaml").exists():
        return str(Path(folder).absolute())
    return f"{log_dir}/plans/{run_name}/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"


def tell_errors(task: Callable[..., Result]) -> Callable[..., Result]:
    """Turn a CxrError into its sentence on stderr and exit code 1, and Ctrl-C into exit code 130."""

    @wraps(task)
    def told(*arguments: object, **keywords: object) -> Result:
        try:
            return task(*arguments, **keywords)
        except CxrError as error:
            sys.stderr.write(f"error: {_sentence(error)}\n")
            sys.exit(1)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            sys.stderr.write(
                f"error: no space left on the disk while writing {error.filename} ({error.strerror}); {FULL_DISK}\n"
            )
            sys.exit(1)
        except KeyboardInterrupt:
            sys.stderr.write("stopped; continue with ckpt_path=<run>/checkpoints/last.ckpt\n")
            sys.exit(130)

    return told


def _sentence(error: CxrError) -> str:
    """What the error says; one from a worker process of a DataLoader comes with the text of its traceback around it."""
    text = str(error).strip()
    if "Original Traceback (most recent call last):" not in text:
        return text
    return text.rpartition(f"{type(error).__name__}: ")[2]
