from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from losslog import StopTraining
from losslog.runtime import endings


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (KeyboardInterrupt(), "stopped"), (StopTraining("x"), "stopped"), (SystemExit(), "finished"),
     (SystemExit(0), "finished"), (SystemExit(3), "failed"), (SystemExit("no"), "failed"), (ValueError("x"), "failed"),
     (GeneratorExit(), "failed")],
    ids=repr,
)  # fmt: skip
def test_how_a_loop_ended(error: BaseException | None, status: str) -> None:
    assert endings.status_of(error)[0] == status


def test_the_error_is_told_in_one_line() -> None:
    assert endings.status_of(ValueError("a\nb")) == ("failed", "ValueError: a b")


class Forgotten:
    def __init__(self) -> None:
        self.forgot = 0

    def forget(self) -> None:
        self.forgot += 1

    def end_at_exit(self, status: str, error: str | None) -> None:
        raise AssertionError("only at exit")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_forgets_the_runs_of_its_parent() -> None:
    run: Any = Forgotten()
    endings.opened(run)
    try:
        child = os.fork()
        if child == 0:
            os._exit(run.forgot + 10 * len(endings._open))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert run.forgot == 0
    finally:
        endings.closed(run)


def test_a_closed_run_is_forgotten() -> None:
    run = Forgotten()
    endings.opened(run)
    endings.closed(run)
    endings.closed(run)
    assert run not in endings.open_runs()


@pytest.mark.parametrize("last", ["1/0", "raise KeyError('another cell')"])
def test_an_error_at_a_prompt_did_not_end_the_run(tmp_path: Path, last: str) -> None:
    typed = f"import losslog\nrun = losslog.Run('typed', {str(tmp_path)!r}, plugins=[])\nrun.log_batch(1.0)\n{last}\n"
    done = subprocess.run([sys.executable, "-i", "-q"], input=typed, capture_output=True, text=True, timeout=60)
    assert "Error" in done.stderr
    (journal,) = tmp_path.glob("typed/*/journal.jsonl")
    end = json.loads(journal.read_text().splitlines()[-1])["data"]
    assert (end["status"], end.get("error")) == ("finished", None)


def test_an_error_of_a_script_ended_its_run(tmp_path: Path) -> None:
    code = f"import losslog\nrun = losslog.Run('script', {str(tmp_path)!r}, plugins=[])\nrun.log_batch(1.0)\n1/0\n"
    subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    (journal,) = tmp_path.glob("script/*/journal.jsonl")
    end = json.loads(journal.read_text().splitlines()[-1])["data"]
    assert (end["status"], end["error"]) == ("failed", "ZeroDivisionError: division by zero")
