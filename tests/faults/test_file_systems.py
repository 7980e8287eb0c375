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
    capsys: pytest.CaptureFixture[str], bench: Any, code: int,
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
    bench.row("a finished run on a file system that is read-only for readers", 5, 0, "what a plugin lacks",
              "`show` and `diagnose` read it; replay delivers it each time, since it cannot be remembered")  # fmt: skip


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


def test_one_file_by_two_names_is_one_lock(tmp_path: Path, bench: Any) -> None:
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
    bench.row("one run folder under two names (case ignored, mounted twice)", "until the end", 0, 0,
              "the second writer is refused at its first line")  # fmt: skip


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSPC], ids=["quota", "disk"])
def test_a_full_quota_costs_nothing_once_there_is_room(
    make_run: Any, bench: Any, monkeypatch: pytest.MonkeyPatch, code: int
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
    if code == errno.EDQUOT:
        bench.row("a quota that is full for a while", 20, 0, 0)


SHIM = """
import errno, os

def refuse(*args, **kwargs):
    code = getattr(errno, os.environ["SHIM_ERROR"])
    raise OSError(code, os.strerror(code))

if os.environ.get("SHIM") == "locks":
    import fcntl
    fcntl.lockf = fcntl.flock = refuse
if os.environ.get("SHIM") == "links":
    os.link = refuse
"""


@pytest.fixture
def shim(package: Any, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment in which every process, the follower too, is refused locks or links."""
    package("", "nothing")  # so that the folder is on every process's path
    (tmp_path / "site-packages" / "sitecustomize.py").write_text(SHIM)
    return lambda what, error: {"SHIM": what, "SHIM_ERROR": error}


SECOND = """
try:
    losslog.Run("fault", resume=run.dir)
except losslog.RunLocked as error:
    print("refused", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="fcntl")
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL"])
def test_no_kernel_locks(bench: Any, expected: str, shim: Any, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    env = shim("locks", error)
    outcome = bench.start(env=env, after=SECOND + "run.close(20)").finish()
    assert outcome.code == 0, outcome.err
    assert expected in outcome.out
    assert "refused" in outcome.out
    assert outcome.steps() == list(range(300))
    outcome.wait_for("witness")
    outcome.wait_for("faulty")
    outcome.follower_ends()
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    outcome.complete_after_replay("witness", "faulty")
    left = [path.name for path in outcome.folder.rglob("*.owner")]
    assert left == []
    bench.row("a file system without kernel locks", 300, 0, 0, "nothing to do; a second writer is refused")


@pytest.mark.parametrize("error", ["EPERM", "ENOTSUP", "EMLINK", "EXDEV"])
def test_no_hard_links(
    bench: Any, expected: str, shim: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """Those who make links: MLflow's store, ``best.pth``."""
    refuse = OSError(getattr(errno, error), os.strerror(getattr(errno, error)))

    def link(*args: Any, **kwargs: Any) -> None:
        raise refuse

    monkeypatch.setattr(os, "link", link)
    keeping = pytest.importorskip("losslog.engine.keeping")
    keeper = keeping.Keeper(tmp_path, None, "AP")
    for epoch, score in ((1, 0.1), (2, 0.3), (3, 0.2)):
        path = tmp_path / f"epoch_{epoch:03d}.pth"
        path.write_text(f"epoch {epoch}")
        keeper.saved(path, epoch, {"AP": score}, None)
    assert (tmp_path / "best.pth").read_text() == "epoch 2"
    assert [each.name for each in tmp_path.glob(".best*")] == []
    outcome = bench.start(env=shim("links", error)).finish()
    assert expected in outcome.out
    outcome.wait_for("witness")
    outcome.wait_for("faulty")
    outcome.follower_ends()
    bench.row("a file system without hard links", 300, 0, 0, "nothing to do; `best.pth` is a copy")


@pytest.mark.parametrize("names", [("Case", "case", "CASE"), ("x" * 255, "x" * 254 + "y"), ("ü" * 127, "面" * 85)],
                         ids=["case", "255 bytes", "not ASCII"])  # fmt: skip
def test_plugins_of_any_name_keep_their_own_cursors(
    bench: Any, package: Any, shim: Any, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Their files differ by more than the case of their letters, and none is too long."""
    site = Path(shim("", "EPERM") and tmp_path / "site-packages")
    info = site / "named-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: named\nVersion: 1.0\n")
    entries = "".join(f"{name} = losslog_test_witness:Plugin\n" for name in names)
    (info / "entry_points.txt").write_text(f"[losslog.plugins]\n{entries}", "utf-8")
    outcome = bench.start(plugins=repr(list(names)), after="run.close(20)").finish()
    assert outcome.code == 0, outcome.err
    outcome.follower_ends()
    cursors = [path.name for path in (outcome.folder / "cursors").glob("*.json")]
    assert len({name.lower() for name in cursors}) == len(names)
    assert all(len(name.encode()) < 200 for name in cursors)
    done = subprocess.run([sys.executable, "-m", "losslog", "show", str(outcome.folder)], capture_output=True,
                          text=True, encoding="utf-8", env={**os.environ, "PYTHONIOENCODING": "utf-8"})  # fmt: skip
    for name in names:
        assert f"{name}: complete\n" in done.stdout, done.stdout + outcome.err
    held = [json.loads(line) for line in (outcome.folder / "witness.jsonl").read_text().splitlines()]
    assert len(held) == len(names) * len(outcome.wanted())
    what = "that differ by case alone" if names[0] == "Case" else "of 255 bytes"
    bench.row(f"plugins with names {what}", 300, 0, 0)


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 255, "面" * 300, "a" * 5000, "...", "con", "a/b", "Run", "run"])
def test_a_run_of_any_name_has_a_folder(make_run: Any, bench: Any, name: str) -> None:
    run = make_run(plugins=None, name=name)
    train(run)
    assert len(os.fsencode(run.dir.parent.name)) <= 255
    assert json.loads((run.dir / JOURNAL).read_text().splitlines()[0])["data"]["name"] == name
    if len(os.fsencode(name)) >= 255:
        bench.row(
            "a run whose name has 255 bytes or more", 5, 0, 0, "its folder has a shorter name, `show` the whole one"
        )
