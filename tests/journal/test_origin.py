"""Where a run comes from: found without a process, without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from losslog.journal.origin import command_line, commit_of, origin
from losslog.journal.redaction import REDACTED


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["train.py", "--lr", "0.1", "-v"], ["train.py", "--lr", "0.1", "-v"]),
        (["--api-key", "abc", "x"], ["--api-key", REDACTED, "x"]),
        (["--token=abc", "--password", "--lr"], [f"--token={REDACTED}", "--password", "--lr"]),
        (["-o", "mlflow.password=abc"], ["-o", f"mlflow.password={REDACTED}"]),
        (["-o", "notify.urls=json://host/abc"], ["-o", f"notify.urls={REDACTED}"]),
        (["--tell", "slack://a/b/c"], ["--tell", f"slack://{REDACTED}"]),
        (["--uri", "http://me:pw@host/x"], ["--uri", f"http://me:{REDACTED}@host/x"]),
        (["--uri=http://me:pw@host/x"], [f"--uri=http://me:{REDACTED}@host/x"]),
    ],
)
def test_secrets_do_not_stay_in_the_command_line(words: list[str], kept: list[str]) -> None:
    assert command_line(words) == kept


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_the_commit_is_read_off_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("shutil").which("git") or pytest.skip("git is not installed")
    assert commit_of(tmp_path) is None
    git(tmp_path, "init", "-q", "one")
    one = tmp_path / "one"
    assert commit_of(one) is None  # nothing committed yet
    git(one, "commit", "-q", "--allow-empty", "-m", "a")
    commit = git(one, "rev-parse", "HEAD")
    (one / "deep" / "er").mkdir(parents=True)
    assert commit_of(one / "deep" / "er") == commit
    git(one, "worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    assert commit_of(tmp_path / "tree") == commit
    git(one, "pack-refs", "--all")
    assert commit_of(one) == commit_of(tmp_path / "tree") == commit
    git(one, "checkout", "-q", "--detach")
    assert commit_of(one) == commit


def test_a_run_remembers_it(finished: Callable[..., Any], tmp_path: Path) -> None:
    source = """
    import losslog
    run = losslog.Run("x", plugins=["console"])
    run.close()
    print(losslog.load(run.dir).origin)
    """
    done = finished(source, "--token", "abc")
    found = eval(done.stdout.splitlines()[-1])
    assert found["command"][1:] == ["--token", REDACTED]
    assert found["script"] == str(tmp_path / "script0.py")
    assert os.path.samefile(found["cwd"], tmp_path)
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["plugins"] == ["console"]
    assert "commit" not in found


def test_what_cannot_be_found_out_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(Path, "is_file", lambda self: (_ for _ in ()).throw(OSError("no")))
    found = origin([])
    assert "script" not in found
    assert "commit" not in found
    assert "plugins" not in found
