from __future__ import annotations

import os
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
