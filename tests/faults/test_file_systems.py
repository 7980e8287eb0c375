"""File systems as people have them, by shims where they cannot be mounted: read-only, quota, one file by two names."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.journal.folder import JOURNAL, LOCK
from losslog.journal.locks import Lock, is_locked

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def train(run: losslog.Run) -> None:
    for step in range(5):
        run.log_batch({"a": 1.0 + step})
    run.end_epoch()
    run.close()


@pytest.fixture
def freeze(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a folder read-only for this process, whoever runs it."""

    def freeze(folder: Path, code: int = errno.EROFS) -> None:
        def refuse(function: Any, writes: Callable[..., bool]) -> Any:
            def wrapped(path: Any, *args: Any, **kwargs: Any) -> Any:
                if isinstance(path, str | os.PathLike) and writes(*args) and Path(path).is_relative_to(folder):
                    raise OSError(code, os.strerror(code), os.fspath(path))
                return function(path, *args, **kwargs)

            return wrapped

        monkeypatch.setattr(os, "open", refuse(os.open, lambda flags, *_: bool(flags & WRITES)))
        for name in ("mkdir", "unlink", "replace", "rename", "truncate"):
            monkeypatch.setattr(os, name, refuse(getattr(os, name), lambda *_: True))

    return freeze


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_run_on_a_read_only_mount_is_shown(
    make_run: Any, freeze: Any, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    run = make_run(plugins=None)
    train(run)
    freeze(run.dir, code)
    assert main(["show", str(run.dir)]) == 0
    assert "finished" in capsys.readouterr().out
    assert main(["diagnose", str(run.dir)]) == 0


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_run_on_a_read_only_mount_is_replayed(
    make_run: Any, freeze: Any, tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], code: int,
) -> None:  # fmt: skip
    package(PLUGIN, "writer")
    monkeypatch.setenv("WHERE", str(tmp_path / "there.txt"))
    run = make_run(plugins=None)
    train(run)
    before = sorted(path.name for path in run.dir.rglob("*"))
    freeze(run.dir, code)
    for _ in range(2):
        assert main(["replay", str(run.dir), "--to", "writer"]) == 0
        said = capsys.readouterr().err.splitlines()
        assert said[0] == f"{run.dir} is read-only: what is delivered is not remembered there"
        assert said[1].startswith("writer: ")
    assert (tmp_path / "there.txt").read_text().split() == [*map(str, range(5))] * 2
    assert sorted(path.name for path in run.dir.rglob("*")) == before


PLUGIN = """
import os
from losslog import hookimpl

class Plugin:
    @hookimpl
    def on_batch_losses(self, step):
        with open(os.environ["WHERE"], "a") as file:
            file.write(f"{step}\\n")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="msvcrt has no shared locks")
def test_a_live_run_on_a_read_only_mount_is_told_apart(make_run: Any, freeze: Any, tmp_path: Path) -> None:
    code = (
        "import sys, losslog\n"
        "run = losslog.Run('live', sys.argv[1], plugins=[])\n"
        "print(run.dir, flush=True)\n"
        "sys.stdin.read()\n"
    )
    live = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert live.stdout is not None
    folder = Path(live.stdout.readline().strip())
    freeze(folder)
    assert is_locked(folder / LOCK)
    assert main(["replay", str(folder), "--to", "writer"]) == 2
    live.communicate("")
    assert not is_locked(folder / LOCK)


def test_one_file_by_two_names_is_one_lock(tmp_path: Path) -> None:
    """As where case is ignored, or a folder is mounted twice."""
    first = Lock(tmp_path / "a.lock")
    assert first.acquire()
    try:
        os.link(tmp_path / "a.lock", tmp_path / "A2.lock")
    except OSError:
        pytest.skip("no hard links here")
    second = Lock(tmp_path / "A2.lock")
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSPC], ids=["quota", "disk"])
def test_a_full_quota_costs_nothing_once_there_is_room(
    make_run: Any, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    run = make_run(plugins=None)
    full = [True]
    write = os.write

    def refuse(fd: int, data: Any) -> int:
        if full[0] and b"on_batch_losses" in bytes(data):
            raise OSError(code, os.strerror(code))
        return write(fd, data)

    monkeypatch.setattr(os, "write", refuse)
    for step in range(20):
        run.log_batch({"a": 1.0 + step})
    full[0] = False
    run.close()
    records = [json.loads(line) for line in (run.dir / JOURNAL).read_text().splitlines()]
    assert [each["data"]["step"] for each in records if each["hook"] == "on_batch_losses"] == list(range(20))


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 255, "面" * 300, "a" * 5000, ".", "..", "con", "a/b", "Run", "run"])
def test_a_run_of_any_name_has_a_folder(make_run: Any, name: str) -> None:
    run = make_run(plugins=None, name=name)
    train(run)
    assert len(os.fsencode(run.dir.parent.name)) <= 255
    assert json.loads((run.dir / JOURNAL).read_text().splitlines()[0])["data"]["name"] == name
