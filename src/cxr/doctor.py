"""`cxr doctor`: what works on this machine, and a remedy for what does not.

Contacts nothing, changes nothing and shows no secret. Whatever is heavy or optional is imported only inside its check.
"""

import json
import netrc
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cxr.data.download.archive import format_size, free_bytes
from cxr.data.download.catalogue import DATASETS, Dataset, data_dir, missing_proof
from cxr.data.download.credentials import HOW_TO_LOG_IN, find_login
from cxr.errors import DataError

DISTRIBUTION = "cxr-lab"
LOW_DISK_BYTES = 5 * 2**30
COLOURS = {"ok": "green", "missing": "yellow", "problem": "red"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: Heading it belongs under.
        name: What was looked at.
        status: "missing" is something optional that is not there; "problem" is something that does not work.
        found: What there is.
        remedy: What to do, or "".
        core: Whether nothing works without it.
    """

    group: str
    name: str
    status: Literal["ok", "missing", "problem"]
    found: str
    remedy: str = ""
    core: bool = False


def examine() -> list[Check]:
    """Look at everything, in the order in which it is needed."""
    parts: tuple[Callable[[], Iterator[Check]], ...] = (
        _check_installation,
        _check_torch,
        _check_codecs,
        _check_credentials,
        _check_weights,
        _check_data,
        _check_disk,
    )
    return [check for part in parts for check in part()]


def is_healthy(checks: Sequence[Check]) -> bool:
    """Whether training can work: no core check is other than ok."""
    return all(check.status == "ok" for check in checks if check.core)


def checks_to_json(checks: Sequence[Check]) -> str:
    """The checks and the verdict as JSON."""
    return json.dumps({"healthy": is_healthy(checks), "checks": [asdict(check) for check in checks]}, indent=2)


def print_checks(checks: Sequence[Check]) -> None:
    """Print the checks as a table on stdout, 100 columns wide where stdout is no terminal."""
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for column in ("name", "status"):
        table.add_column(column, no_wrap=True)
    table.add_column("details")
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            table.add_row(Text(group, style="bold"))
        details = f"{check.found}\n-> {check.remedy}" if check.remedy else check.found
        table.add_row(Text(f"  {check.name}"), Text(check.status, style=COLOURS[check.status]), Text(details))
    console.print(table)
    wrong = sum(check.status == "problem" for check in checks)
    verdict = "everything needed for training works" if is_healthy(checks) else "training cannot work yet"
    console.print(f"\n{verdict}; {wrong} problem{'' if wrong == 1 else 's'}")


def _check_installation() -> Iterator[Check]:
    try:
        version(DISTRIBUTION)
    except PackageNotFoundError:
        remedy = "pip install -e . in the project's folder"
        yield Check("system", DISTRIBUTION, "problem", "not installed", remedy, core=True)
        return
    yield from _check_python()
    yield from _check_core_packages()
    yield from _check_extras()


def _check_python() -> Iterator[Check]:
    wanted = SpecifierSet(metadata(DISTRIBUTION)["Requires-Python"])
    found = platform.python_version()
    if wanted.contains(found, prereleases=True):
        yield Check("system", "python", "ok", f"{found} on {platform.system()} {platform.machine()}", core=True)
    else:
        yield Check("system", "python", "problem", found, f"install Python {wanted}", core=True)


def _check_core_packages() -> Iterator[Check]:
    wanted = _requirements("")
    faults = {item.name: _fault(item) for item in wanted}
    good = [f"{item.name} {version(item.name)}" for item in wanted if faults[item.name] is None]
    wrong = {name: fault for name, fault in faults.items() if fault is not None}
    if good:
        yield Check("packages", f"core ({len(good)} of {len(wanted)})", "ok", ", ".join(good))
    for name, fault in wrong.items():
        yield Check("packages", name, "problem", fault, f"pip install -U {DISTRIBUTION}", core=True)


def _check_extras() -> Iterator[Check]:
    for extra in metadata(DISTRIBUTION).get_all("Provides-Extra", []):
        wanted = [item for item in _requirements(extra) if item.name != DISTRIBUTION]
        if extra in ("all", "dev") or not wanted:
            continue
        faults = [fault for fault in map(_fault, wanted) if fault is not None]
        if faults:
            remedy = f"pip install '{DISTRIBUTION}[{extra}]'"
            yield Check("optional packages", extra, "missing", ", ".join(faults), remedy)
        else:
            found = ", ".join(f"{item.name} {version(item.name)}" for item in wanted)
            yield Check("optional packages", extra, "ok", found)


def _requirements(extra: str) -> list[Requirement]:
    """What one extra needs on this platform beside the core, or, for "", what the core needs."""
    items = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    core = [item for item in items if item.marker is None or item.marker.evaluate({"extra": ""})]
    if extra == "":
        return core
    return [item for item in items if item not in core and item.marker and item.marker.evaluate({"extra": extra})]


def _fault(wanted: Requirement) -> str | None:
    """What is wrong with an installed package, or None."""
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is not installed"
    if wanted.specifier.contains(found, prereleases=True):
        return None
    return f"{wanted.name} is {found}, expected {wanted.specifier}"


def _check_torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("compute", "torch", "problem", f"cannot be imported: {error}", "reinstall torch", core=True)
        return
    yield Check("compute", "torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} CPU threads", core=True)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            yield Check("compute", f"GPU {index}", "ok", f"{device.name}, {format_size(device.total_memory)}")
    elif torch.backends.mps.is_available():
        yield Check("compute", "GPU", "ok", "Apple MPS")
    elif shutil.which("nvidia-smi") is not None:
        remedy = "install a torch built for its driver: https://pytorch.org/get-started/locally"
        yield Check("compute", "GPU", "problem", "an NVIDIA driver is installed, but torch cannot use it", remedy)
    else:
        yield Check("compute", "GPU", "missing", "none; training runs on the CPU")


def _check_codecs() -> Iterator[Check]:
    try:
        from cxr.imaging.dicom_codecs import available_decoders
    except ImportError as error:
        yield Check("DICOM", "codecs", "problem", str(error), f"pip install -U {DISTRIBUTION}", core=True)
        return
    decoders = available_decoders()
    usable = [name for name, works in decoders.items() if works]
    yield Check("DICOM", "codecs", "ok", ", ".join(usable), core=True)
    if len(usable) < len(decoders):
        lacking = ", ".join(name for name in decoders if name not in usable)
        remedy = "pip install python-gdcm pylibjpeg pylibjpeg-openjpeg"
        yield Check("DICOM", "codecs", "missing", f"cannot decode {lacking}", remedy)


def _check_credentials() -> Iterator[Check]:
    try:
        login = find_login()
    except DataError as error:
        yield Check("credentials", "kaggle", "problem", str(error))
    else:
        if login is None:
            yield Check("credentials", "kaggle", "missing", "needed to download SIIM", HOW_TO_LOG_IN)
        else:
            yield Check("credentials", "kaggle", "ok", f"from {login.source}")
    source = _wandb_key_source()
    if source is None:
        found = "runs are kept on this machine and can be sent later with `wandb sync`"
        yield Check("credentials", "wandb", "missing", found, "wandb login, with a key from https://wandb.ai/authorize")
    else:
        yield Check("credentials", "wandb", "ok", f"from {source}")


def _wandb_key_source() -> str | None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if os.environ.get(name):
            return name
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    for path in (Path(os.environ.get("NETRC", Path.home() / ".netrc")), Path.home() / "_netrc"):
        try:
            if netrc.netrc(str(path)).authenticators(host) is not None:
                return str(path)
        except (OSError, netrc.NetrcParseError):
            continue
    return None


def _check_weights() -> Iterator[Check]:
    folder = Path.home() / ".torchxrayvision" / "models_data"
    files = sorted(path.name for path in folder.glob("*") if path.suffix in (".pt", ".safetensors"))
    if files:
        yield Check("weights", "torchxrayvision", "ok", f"{len(files)} files in {folder}")
    else:
        remedy = "fetched by the first run with net=xrv_densenet121; or net.weights_path=FILE, or net.weights=null"
        yield Check("weights", "torchxrayvision", "missing", f"none in {folder}", remedy)


def _check_data() -> Iterator[Check]:
    phantoms = data_dir() / "phantom"
    if (phantoms / "train_study_level.csv").exists():
        yield Check("data", "phantom", "ok", str(phantoms))
    else:
        remedy = "made by the first run with data=phantom, or by python scripts/make_phantoms.py"
        yield Check("data", "phantom", "missing", f"none in {phantoms}", remedy)
    yield from map(_check_dataset, DATASETS.values())


def _check_dataset(dataset: Dataset) -> Check:
    folder = data_dir() / dataset.folder
    lacking = missing_proof(dataset, folder)
    if not lacking:
        return Check("data", dataset.name, "ok", str(folder))
    remedy = f"cxr data get --dataset {dataset.name}"
    if len(lacking) == len(dataset.proof):
        return Check("data", dataset.name, "missing", f"none in {folder}", remedy)
    return Check("data", dataset.name, "problem", f"{folder} lacks {lacking[0]}", f"move it away, then {remedy}")


def _check_disk() -> Iterator[Check]:
    free = free_bytes(data_dir())
    found = f"{format_size(free)} free for {data_dir()}"
    if free >= LOW_DISK_BYTES:
        yield Check("disk", "data folder", "ok", found)
    else:
        yield Check(
            "disk", "data folder", "problem", found, "make room, or set CXR_DATA_DIR to a folder on another disk"
        )
    cache = Path(os.environ.get("CXR_CACHE_DIR", Path.home() / ".cache" / "cxr-lab"))
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    yield Check("disk", "cache folder", "ok", f"{format_size(size)} in {cache}, safe to delete")
