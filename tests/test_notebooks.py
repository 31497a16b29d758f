"""Every notebook runs from top to bottom without data of its own, and is stored without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SILENT = ("DRIVE", "import os")


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    for cell in code_cells(read(path)):
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_what_to_change_for_a_mounted_drive(path):
    notebook = read(path)
    assert "mount" in "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert code_cells(notebook)[0].source.startswith("DRIVE = None")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_writes_only_where_it_is_told(path, tmp_path, monkeypatch):
    for folder in ("data", "log", "cache"):
        monkeypatch.setenv(f"CXR_{folder.upper()}_DIR", str(tmp_path / folder))
    before = set(path.parent.iterdir())
    notebook = read(path)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()

    silent = [cell.source for cell in code_cells(notebook) if not cell.outputs]
    assert all(source.startswith(SILENT) for source in silent)
    assert set(path.parent.iterdir()) == before
    assert {folder.name for folder in tmp_path.iterdir()} == {"data", "log", "cache"}
