"""``losslog follow``: another process tails a run, with the lanes a run itself uses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog

pytestmark = pytest.mark.threaded


def follow(folder: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "losslog", "follow", str(folder), "--to", "far", *args]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder.parent, env=os.environ.copy()
    )


def test_it_delivers_until_the_run_ends(
    make_run: Callable[..., losslog.Run], package: Callable[..., str], far_source: str, until: Any
) -> None:
    package(far_source, "far")
    run = make_run()
    run.log_batch(1.0)
    run.flush()
    other = follow(run.dir)
    try:
        until(lambda: (run.dir / "far.txt").exists())
        run.log_batch(2.0)
        run.close()
        assert other.wait(60) == 0
    finally:
        other.kill()
        other.communicate()
    assert (run.dir / "far.txt").read_text().splitlines() == [
        "start 0", "batch 0 1.0", "batch 1 2.0", "end finished",
    ]  # fmt: skip


def test_a_second_time_nothing_is_sent_again(
    make_run: Callable[..., losslog.Run], package: Callable[..., str], far_source: str
) -> None:
    package(far_source, "far")
    run = make_run()
    run.log_batch(1.0)
    run.close()
    for _ in range(2):
        other = follow(run.dir)
        _, err = other.communicate(timeout=60)
        assert other.returncode == 0, err
    lines = (run.dir / "far.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("start")] == ["batch 0 1.0", "end finished"]


def test_a_plugin_that_is_not_installed(make_run: Callable[..., losslog.Run]) -> None:
    run = make_run()
    run.close()
    other = follow(run.dir)
    _, err = other.communicate(timeout=60)
    assert other.returncode == 2
    assert "no plugin named 'far'" in err
