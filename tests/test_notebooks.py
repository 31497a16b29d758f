"""Every notebook runs from top to bottom without data of its own, and is stored without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SILENT = ("DRIVE", "import os")
LEAVES = {
    "1_explore_data": ["log/data_report/*/report.html"],
    "2_train_compare_explain": ["log/runs/small_cnn/*/bundle/bundle.json", "log/runs/resnet18/*/bundle/bundle.json"],
    "3_search_and_automl": [
        "log/sweeps/notebook/best.yaml", "log/sweeps/notebook/trial_*/bundle/bundle.json",
        "log/plans/notebook_automl/*/leaderboard.csv", "log/plans/notebook_automl/*/bundle/bundle.json",
    ],
}  # fmt: skip


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(notebook, folder):
    """Run all cells; a shell command that fails, which IPython only shows, fails its cell."""
    for cell in code_cells(notebook):
        if cell.source.startswith("!"):
            cell.source += "\nassert _exit_code == 0, f'exit code {_exit_code}'"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()


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
    execute(notebook, path.parent)

    silent = [cell.source for cell in code_cells(notebook) if not cell.outputs]
    assert all(source.startswith(SILENT) for source in silent)
    assert set(path.parent.iterdir()) == before
    assert {folder.name for folder in tmp_path.iterdir()} == {"data", "log", "cache"}
    for pattern in LEAVES[path.stem]:
        assert list(tmp_path.glob(pattern)), pattern


@pytest.mark.slow
def test_a_command_that_fails_in_a_notebook_is_noticed(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("!echo 'error: no such key'; exit 3")])
    with pytest.raises(CellExecutionError, match="exit code 3"):
        execute(notebook, tmp_path)
