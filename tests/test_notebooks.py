"""Every notebook runs from top to bottom without data of its own, and is stored without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


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


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_writes_only_where_it_is_told(path, tmp_path, monkeypatch):
    for folder in ("data", "log", "cache"):
        monkeypatch.setenv(f"CXR_{folder.upper()}_DIR", str(tmp_path / folder))
    before = set(path.parent.iterdir())
    notebook = read(path)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()

    assert all(cell.outputs for cell in code_cells(notebook)[1:])
    assert set(path.parent.iterdir()) == before
    assert len(list(tmp_path.glob("log/runs/*/*/bundle/bundle.json"))) == 1
    assert {folder.name for folder in tmp_path.iterdir()} == {"data", "log", "cache"}
