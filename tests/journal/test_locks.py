"""Locks that die with their process, however it dies."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.journal.locks import Lock, is_locked

HOLD = """
import sys, time
from pathlib import Path
from losslog.journal.locks import Lock
print(Lock(Path(sys.argv[1])).acquire(), flush=True)
time.sleep(60)
"""


def test_one_holder_within_a_process(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "a.lock"), Lock(tmp_path / "a.lock")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_looking_at_a_lock_does_not_break_it(tmp_path: Path, script: Callable[..., Any]) -> None:
    # Closing any descriptor of a file drops this process's record locks on it.
    lock = Lock(tmp_path / "a.lock")
    assert lock.acquire()
    assert is_locked(tmp_path / "a.lock")
    assert not Lock(tmp_path / "a.lock").acquire()
    other = script(HOLD, str(tmp_path / "a.lock"))
    assert other.stdout.readline() == "False\n"
    lock.release()


def test_a_process_that_is_killed_frees_it(tmp_path: Path, script: Callable[..., Any]) -> None:
    other = script(HOLD, str(tmp_path / "a.lock"))
    assert other.stdout.readline() == "True\n"
    assert is_locked(tmp_path / "a.lock")
    other.kill()
    other.wait()
    assert not is_locked(tmp_path / "a.lock")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_it(tmp_path: Path, script: Callable[..., Any]) -> None:
    source = """
    import os, sys, time
    from pathlib import Path
    from losslog.journal.locks import Lock
    assert Lock(Path(sys.argv[1])).acquire()
    if os.fork() == 0:
        os.close(1); os.close(2)
        time.sleep(20)
        os._exit(0)
    os._exit(0)
    """
    parent = script(source, str(tmp_path / "a.lock"))
    assert parent.wait(30) == 0
    assert not is_locked(tmp_path / "a.lock")


def test_what_does_not_exist_is_not_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "absent.lock")
    assert not (tmp_path / "absent.lock").exists()


def test_a_link_to_the_same_file_is_the_same_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    first = Lock(tmp_path / "a.lock")
    assert first.acquire()
    assert not Lock(tmp_path / "link" / "a.lock").acquire()
    first.release()


def test_releasing_twice_is_harmless(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "a.lock")
    lock.release()
    assert lock.acquire()
    lock.release()
    lock.release()
    assert not is_locked(tmp_path / "a.lock")


@pytest.fixture
def no_kernel_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_without_kernel_locks_a_file_says_who_has_it(tmp_path: Path, no_kernel_locks: None) -> None:
    first = Lock(tmp_path / "a.lock")
    assert first.acquire()
    assert (tmp_path / "a.owner").exists()
    first.release()
    assert not (tmp_path / "a.owner").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_an_owner_that_a_full_disk_could_not_name_keeps_nobody(tmp_path: Path, no_kernel_locks: None) -> None:
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            Lock(tmp_path / "a.lock").acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    lock = Lock(tmp_path / "a.lock")
    assert lock.acquire()
    lock.release()


@pytest.fixture(params=["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL", "EPERM"])
def no_locks_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl", reason="POSIX")

    def lockf(*_: Any) -> None:
        raise OSError(getattr(errno, request.param), "no locks on this file system")

    monkeypatch.setattr(fcntl, "lockf", lockf)


def test_a_file_system_without_kernel_locks_does_with_a_file(tmp_path: Path, no_locks_here: None) -> None:
    first, second = Lock(tmp_path / "a.lock"), Lock(tmp_path / "a.lock")
    assert first.acquire()
    assert not second.acquire()
    assert is_locked(tmp_path / "a.lock")
    first.release()
    assert not is_locked(tmp_path / "a.lock")


def test_a_run_on_a_file_system_without_kernel_locks(tmp_path: Path, no_locks_here: None) -> None:
    with losslog.Run("nfs", dir=tmp_path, plugins=None) as run:
        run.log_batch(1.0)
        with pytest.raises(losslog.RunLocked, match=r"journal\.owner"):
            losslog.Run(dir=tmp_path, plugins=None, resume=run.dir)
    with losslog.Run(dir=tmp_path, plugins=None, resume=run.dir) as again:
        assert again.next_step == 1


@pytest.mark.parametrize("name", ["EIO", "ESTALE"])
def test_a_lock_that_cannot_be_asked_for_now_is_not_called_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="POSIX")

    def lockf(*_: Any) -> None:
        raise OSError(getattr(errno, name), "try again later")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.raises(OSError, match="try again later"):
        Lock(tmp_path / "a.lock").acquire()


def dead_process() -> int:
    import subprocess

    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    return done.pid


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_without_kernel_locks_an_owner_that_died_here_keeps_nobody(tmp_path: Path, no_kernel_locks: None) -> None:
    (tmp_path / "a.owner").write_text(f"{dead_process()} {os.uname().nodename}")
    lock = Lock(tmp_path / "a.lock")
    assert lock.acquire()
    lock.release()


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.parametrize("owner", ["", "x", "1 another-host", "-5 ?", f"{os.getppid()} {{host}}"])
def test_without_kernel_locks_an_owner_that_may_live_keeps_it(
    tmp_path: Path, no_kernel_locks: None, owner: str
) -> None:
    (tmp_path / "a.owner").write_text(owner.format(host=os.uname().nodename))
    assert not Lock(tmp_path / "a.lock").acquire()
