"""The house rules that a reader cannot check by eye: imports only go down, and third parties stay in their rooms."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "cxr"

FLOORS = [
    ["errors", "memory", "pages", "progress", "scaling"],
    ["imaging"],
    ["data", "models"],
    ["inference", "evaluation"],
    ["explanation"],
    ["training", "ensemble", "classical"],
    ["experiments"],
    ["doctor", "entry"],
    ["compose"],
    ["serving"],
    ["commands"],
    ["parsers"],
    ["cli"],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}

FENCES = {
    "hydra": ("compose.py", "training/building.py", "experiments/sweeper.py", "experiments/sweep_config.py"),
    "pytorch_lightning": ("training/",),
    "lightning_fabric": ("training/",),
    "wandb": ("training/callbacks/wandb_media.py",),
    "pydicom": ("imaging/dicom", "data/phantoms/dicom_writer.py"),
    "torchxrayvision": ("models/xrv",),
    "fastapi": ("serving/",),
    "uvicorn": ("serving/",),
    "prometheus_client": ("serving/",),
    "matplotlib": ("evaluation/figure", "evaluation/drawing.py", "evaluation/report/figures.py"),
    "jinja2": ("pages/",),
    "kaggle": ("data/download/",),
    "kagglesdk": ("data/download/",),
    "requests": ("data/download/",),
    "torch": (
        "data/dataset.py",
        "data/batch.py",
        "data/augment",
        "data/look.py",
        "data/mixing.py",
        "models/",
        "training/",
        "inference/",
        "doctor.py",
    ),
}


def imported_names(tree: ast.AST) -> set[str]:
    """Dotted names of every module imported anywhere in the tree."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(dotted: str) -> str | None:
    """The room of ``cxr.<room>...``, or None for what is not a room."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "cxr" and len(parts) > 1 and parts[1] in FLOOR else None


def upward_imports(path: str, text: str) -> list[str]:
    """Imports in the file `path` (relative to src/cxr) of a room that is not below it."""
    room = path.split("/")[0].removesuffix(".py")
    others = {room_of(name) for name in imported_names(ast.parse(text))} - {None, room}
    return [f"{path} imports {other}" for other in sorted(others) if FLOOR[other] >= FLOOR[room]]


def fence_breaches(path: str, text: str) -> list[str]:
    """Third-party imports in `path` that belong to another place."""
    tops = {name.split(".")[0] for name in imported_names(ast.parse(text))}
    return [
        f"{path} imports {top}" for top in sorted(tops & FENCES.keys()) if not path.startswith(FENCES[top])
    ]  # fmt: skip


def sources() -> list[tuple[str, str]]:
    return [
        (path.relative_to(SOURCE).as_posix(), path.read_text())
        for path in sorted(SOURCE.rglob("*.py"))
        if path != SOURCE / "__init__.py"
    ]


def test_imports_only_go_down():
    assert [breach for path, text in sources() for breach in upward_imports(path, text)] == []


def test_third_parties_stay_in_their_rooms():
    assert [breach for path, text in sources() for breach in fence_breaches(path, text)] == []


def test_what_serves_never_trains():
    texts = [text for path, text in sources() if path.startswith("serving/")]
    names = {name for text in texts for name in imported_names(ast.parse(text))}
    assert "inference" in {room_of(name) for name in names}
    assert not {"training", "ensemble", "classical"} & {room_of(name) for name in names}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("imaging/image.py", "from cxr.data.cache import ImageCache"),
        ("models/build.py", "import cxr.data.splits"),
        ("data/splits.py", "def f():\n    from cxr.models import build"),
        ("training/fit.py", "import cxr.experiments.queue"),
    ],
)
def test_an_upward_import_is_found(path, text):
    assert len(upward_imports(path, text)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("data/splits.py", "import torch"),
        ("training/fit.py", "import wandb"),
        ("evaluation/metrics.py", "def f():\n    from matplotlib import pyplot"),
    ],
)
def test_a_breached_fence_is_found(path, text):
    assert len(fence_breaches(path, text)) == 1


@pytest.mark.parametrize(
    "module", ["cxr", "cxr.errors", "cxr.entry", "cxr.compose", "cxr.cli", "cxr.imaging.preprocess"]
)
def test_light_modules_import_neither_torch_nor_wandb(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'wandb', 'pytorch_lightning'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_method_is_shadowed_by_an_instance_attribute():
    shadowed = []
    for path, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                methods = {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
                assigned = set(re.findall(r"\bself\.(\w+)\s*(?::[^=\n]+)?=[^=]", ast.unparse(node)))
                shadowed += [f"{path}:{node.name}.{name}" for name in methods & assigned]
    assert shadowed == []
