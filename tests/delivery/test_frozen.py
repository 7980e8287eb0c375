"""A program whose executable is no Python, and one that may have no more threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.delivery.follower import no_python

Made = Callable[..., losslog.Run]


@pytest.mark.parametrize("name", ["program", "blender", "Maya.exe", ""])
def test_an_executable_that_is_no_python_is_known(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert no_python() == ""
    monkeypatch.setattr(sys, "executable", name and f"/opt/{name}")
    assert "executable" in no_python()


def test_a_frozen_program_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert no_python()


@pytest.mark.skipif(os.name == "nt", reason="a shell script as the program")
@pytest.mark.parametrize("name", ["program", "python-program"])
def test_a_program_does_not_start_itself_for_ever(
    finished: Any, package: Callable[..., str], far_source: str, tmp_path: Path, name: str
) -> None:
    """The stand-in runs the script again, whatever it is told: so does a frozen program."""
    package(far_source, "far")
    program = tmp_path / name
    source = f"""
    import os, pathlib, sys, losslog
    with open({str(tmp_path / "count")!r}, "a") as file:
        file.write("x")
    sys.executable = {str(program)!r}
    run = losslog.Run("frozen", dir="runs", plugins=["far"])
    run.log_batch(1.0)
    run.close(10)
    print((run.dir / "far.txt").exists())
    """
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "script0.py"}"\n')
    program.chmod(0o755)
    done = finished(source, timeout=100)
    assert done.returncode == 0, done.stderr
    times = len((tmp_path / "count").read_text())
    if name == "program":  # known by its name: nothing is started, plugins are near
        assert times == 1
        assert "True" in done.stdout
        assert done.stderr.count("is no Python") == 1
    else:  # not known, but each that is started knows what it is
        assert times <= 5


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_follower_that_may_have_no_threads_says_so_at_once(
    make_run: Made, package: Callable[..., str], far_source: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    package(far_source, "far")
    site = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0])
    (site / "sitecustomize.py").write_text(
        "import os, threading\n"
        "if 'LOSSLOG_PARENT_PID' in os.environ:\n"
        "    def start(self):\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    threading.Thread.start = start\n"
    )
    run = make_run(plugins=["far"], follower=True)
    run.log_batch(1.0)
    run.close(20)
    assert caplog.text.count("cannot have the threads it needs") == 1
    assert "started again" not in caplog.text
