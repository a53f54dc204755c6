"""The notebooks of the site hold the outputs of a real run, and run again."""

import pytest
from pages import ROOT

nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(outputs):
    """Kinds of output that a reader is shown; what libraries say on standard error is left out of the site."""
    return {output.output_type for output in outputs if output.get("name") != "stderr"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_one_run_from_top_to_bottom(path):
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert cells[-1].outputs, "the last cell shows what came out"
    assert "site-packages" not in path.read_text(encoding="utf-8"), "a path of the machine that it ran on"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path):
    client = pytest.importorskip("nbclient")
    notebook = read(path)
    shown = [cell.outputs for cell in code_cells(notebook)]
    client.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for before, cell in zip(shown, code_cells(notebook), strict=True):
        assert kinds(cell.outputs) == kinds(before), cell.source
    assert (tmp_path / "runs").is_dir()
