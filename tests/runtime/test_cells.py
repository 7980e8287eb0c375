"""Runs that are left open in a real kernel: what is known of their end when it is shut down."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

BEGIN = "import losslog; run = losslog.Run('cells', 'runs', plugins=[])"
TRAIN = "run.log_batch(1.0)"
BREAK = "run.log_batch(1.0); raise ValueError('nan')"
OTHER = "1/0"
LATER = """
import threading
go, done = threading.Event(), threading.Event()

def train():
    go.wait(30)
    run.log_batch(1.0)
    done.set()

threading.Thread(target=train).start()
"""
FAILED, FINISHED = ("failed", "ValueError: nan"), ("finished", None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("cells", "ended"),
    [
        ([BEGIN, BREAK], FAILED),
        ([BEGIN, TRAIN, OTHER], FINISHED),
        ([BEGIN, BREAK, OTHER], FAILED),
        ([BEGIN, BREAK, "2 + 2"], FAILED),
        ([BEGIN, BREAK, TRAIN], FINISHED),
        ([OTHER, BEGIN, TRAIN], FINISHED),
        ([BEGIN, TRAIN, "not python"], FINISHED),
        ([BEGIN + "; raise ValueError('nan')"], FAILED),
        ([BEGIN, TRAIN, "run.log_eval({'AP': 0.1}); raise ValueError('nan')"], FAILED),
        ([BEGIN, TRAIN, "run.log_batch(1.0); raise KeyboardInterrupt"], ("stopped", "KeyboardInterrupt")),
        ([BEGIN, "async def f():\n    run.log_batch(1.0)\n    raise ValueError('nan')\nawait f()"], FAILED),
        ([BEGIN, TRAIN, LATER, "go.set(); done.wait(30); raise ValueError('nan')"], FINISHED),
    ],
    ids=["breaks", "another", "breaks then another", "breaks then a good one", "goes on", "before", "no python",
         "at the start", "evaluation", "stop button", "async", "logged by a thread"],
)  # fmt: skip
def test_an_open_run_knows_whether_its_cell_failed(
    tmp_path: Path, cells: list[str], ended: tuple[str, str | None]
) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(each)) for each in cells])
    client = nbclient.NotebookClient(
        notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    (journal,) = tmp_path.glob("runs/cells/*/journal.jsonl")
    end = json.loads(journal.read_text().splitlines()[-1])
    assert end["hook"] == "on_run_end"
    assert (end["data"]["status"], end["data"].get("error")) == ended


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_runs_end_each_as_its_own_cell_did(tmp_path: Path) -> None:
    cells = [
        "import losslog; good = losslog.Run('good', 'runs', plugins=[]); bad = losslog.Run('bad', 'runs', plugins=[])",
        "good.log_batch(1.0)",
        "bad.log_batch(1.0); raise ValueError('nan')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    client = nbclient.NotebookClient(
        notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    for name, status in (("good", "finished"), ("bad", "failed")):
        (journal,) = tmp_path.glob(f"runs/{name}/*/journal.jsonl")
        assert json.loads(journal.read_text().splitlines()[-1])["data"]["status"] == status
