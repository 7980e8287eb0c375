"""The notebook: it runs, draws while it trains, shows the report, and stays small when it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")
pytest.importorskip("losslog_report", reason="losslog-report is not installed")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


def markup(cell: Any) -> list[str]:
    return [output["data"].get("text/html", "") for output in cell.outputs if "data" in output]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # what is committed has no outputs
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    training, shown = (cell for cell in notebook.cells[-3:] if cell.cell_type == "code")
    charts = [each for each in markup(training) if "<svg" in each]
    assert len(charts) == 1
    assert "finished" in charts[0]
    assert "loss_box_reg" in charts[0]
    assert len(charts[0]) < 8000
    (report,) = markup(shown)
    assert report.startswith("<iframe sandbox='allow-scripts'")
    assert "accuracy" in report
    assert len(nbformat.writes(notebook).encode()) < 1_000_000
