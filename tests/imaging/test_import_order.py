"""GDCM and Pillow live in one process only if Pillow came first; else the next PNG ends it, with a torn heap."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if any(f"import {name}" in path.read_text() or f"from {name}" in path.read_text() for name in ("gdcm", "pydicom"))
)
SCRIPT = """
import importlib, io, sys
importlib.import_module(sys.argv[1])
import pydicom.pixels, gdcm
loaded = list(sys.modules)
assert loaded.index("PIL._imaging") < loaded.index("gdcm")
from PIL import Image
for level in range(50):
    Image.new("L", (8, 8), level).save(io.BytesIO(), "PNG")
"""


@pytest.mark.parametrize("module", MODULES)
def test_pillow_is_loaded_before_gdcm(module):
    result = subprocess.run([sys.executable, "-c", SCRIPT, module], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_only_module_that_imports_gdcm_itself_is_among_them():
    assert "cxr.imaging.dicom_jpeg12" in MODULES
