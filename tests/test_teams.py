"""Several users: a group's share stays one, and looking at somebody else's run changes nothing."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import losslog

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="users and modes of POSIX")
OTHER = 65534  # nobody
TEAM = 54321
# Python itself may lie where another user cannot read: everything is imported before.
SCRIPT = """
import importlib, os, pkgutil, sys
import concurrent.futures, difflib, email.utils, importlib.metadata, multiprocessing, platform
import shutil, sysconfig, tempfile
import uuid
import losslog, losslog.cli
for name in ("cli", "delivery", "journal", "recording", "runtime", "values", "viewing"):
    package = importlib.import_module(f"losslog.{{name}}")
    for each in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        try:
            importlib.import_module(each.name)
        except Exception:
            pass
losslog.delivery.discovery.discover()
run = losslog.Run("before", dir=tempfile.mkdtemp(), plugins=None)
run.log_batch(1.0)
run.close()
sysconfig.get_config_vars(), sysconfig.get_paths()
os.umask(0o002)
os.chdir("/")
os.setgroups([{team}])
os.setgid({other})
os.setuid({other})
{then}
"""
LOG = """
run = losslog.Run("same", dir=sys.argv[1], plugins=None)
run.log_batch({"a": 1.0})
run.close()
print(run.dir)
"""


@pytest.fixture
def share() -> Iterator[Path]:
    """A folder that the user and a team may write to, as an administrator sets it up."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o2775)
    before = os.umask(0o002)
    yield folder
    os.umask(before)
    shutil.rmtree(folder)


def modes(folder: Path) -> dict[str, int]:
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.rglob("*")}


def as_other(then: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code as another user of the team."""
    if os.geteuid() != 0:
        pytest.skip("only root may act as another user")
    code = SCRIPT.format(team=TEAM, other=OTHER, then=then)
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("umask", "folders", "files"), [(0o002, 0o775, 0o664), (0o022, 0o755, 0o644),
                                                         (0o077, 0o700, 0o600), (0o000, 0o775, 0o664)])  # fmt: skip
def test_the_umask_tells_who_may_write(share: Path, umask: int, folders: int, files: int) -> None:
    os.umask(umask)
    run = losslog.Run("n", dir=share / "runs", plugins=None)
    run.close()
    made = [run.dir, run.dir.parent, run.dir.parent.parent]
    assert {stat.S_IMODE(each.stat().st_mode) & 0o777 for each in made} == {folders}
    assert {stat.S_IMODE(each.stat().st_mode) for each in run.dir.iterdir() if each.is_file()} == {files}


def test_a_second_user_may_log_under_the_same_name(share: Path) -> None:
    if os.geteuid() == 0:
        os.chown(share, -1, TEAM)
        share.chmod(0o2775)
    run = losslog.Run("same", dir=share, plugins=None)
    run.close()
    assert run.dir.parent.stat().st_mode & stat.S_ISGID
    done = as_other(LOG, str(share))
    assert done.returncode == 0, done.stderr
    theirs = Path(done.stdout.strip())
    assert (theirs.parent, theirs.stat().st_uid, theirs.stat().st_gid) == (run.dir.parent, OTHER, TEAM)


@pytest.mark.parametrize("command", [["show"], ["diagnose"], ["ls", "--dir"]])
def test_looking_at_somebody_elses_run_works_and_writes_nothing(share: Path, command: list[str]) -> None:
    os.umask(0o022)
    run = losslog.Run("mine", dir=share / "runs", plugins=None)
    for step in range(20):
        run.log_batch({"a": float(step)})
    run.end_epoch()
    run.close()
    (share / "runs").chmod(0o755)
    before = modes(share), {each: each.read_bytes() for each in share.rglob("*") if each.is_file()}
    target = str(share / "runs") if command[0] == "ls" else str(run.dir)
    done = as_other("sys.exit(losslog.cli.main(sys.argv[1:]))", *command, target)
    assert done.returncode in (0, 1), done.stderr  # 1: diagnose has found something
    assert "Traceback" not in done.stderr
    assert "denied" not in done.stderr
    assert (modes(share), {each: each.read_bytes() for each in share.rglob("*") if each.is_file()}) == before
