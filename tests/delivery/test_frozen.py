"""A program whose executable is no Python, and one that may have no more threads or processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.delivery.follower import no_python

Made = Callable[..., losslog.Run]
ROOT = Path(losslog.__file__).parents[1]
LIMITED = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
import losslog
run = losslog.Run("limited", dir="runs", plugins=["far"])
for step in range(300):
    run.log_batch(float(step))
run.close(1000)
print(run.dir)
"""


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


@pytest.mark.skipif(sys.platform != "linux", reason="limits on processes as Linux has them")
@pytest.mark.parametrize("limit", range(1, 9))
def test_a_limit_on_processes_costs_no_record(
    package: Callable[..., str], far_source: str, records: Any, tmp_path: Path, limit: int
) -> None:
    """From one thread in all to as many as are wanted; whoever is not served says so, and `close` does not wait."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("root is needed to be another user, and setpriv: the limit is one for each user, and none for root")
    package(far_source, "far")
    (tmp_path / "script.py").write_text(LIMITED)
    tmp_path.chmod(0o777)
    user = str(64_000 + limit)  # of its own, so that nothing else is counted; it may read what root may
    other = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=+dac_read_search",
             "--ambient-caps=+dac_read_search", sys.executable, "script.py", str(limit)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    done = subprocess.run(other, capture_output=True, text=True, timeout=100, cwd=tmp_path, env=environment)
    if limit == 1:  # as where the disk is read-only: it is said where the run is made
        assert done.returncode == 1
        assert "no thread can be had: a limit on processes" in done.stderr.splitlines()[-1]
        return
    assert done.returncode == 0, done.stderr
    folder = tmp_path / done.stdout.strip()
    assert [each.seq for each in records(folder)] == list(range(302))
    served = "undelivered" not in done.stderr
    assert served or "far: parked (no thread can be had" in done.stderr, done.stderr
    assert served == (folder / "far.txt").exists()
    again = [sys.executable, "-m", "losslog", "replay", str(folder), "--to", "far"]
    replayed = subprocess.run(again, capture_output=True, text=True, timeout=100, env=environment)
    assert replayed.returncode == 0, replayed.stderr
    batches = [line for line in (folder / "far.txt").read_text().splitlines() if line.startswith("batch")]
    assert batches == [f"batch {step} {float(step)!r}" for step in range(300)]
