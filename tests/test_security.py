"""Secrets, names that steer terminals, permissions, ports: what a run gives away, and to whom."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import losslog
from losslog.cli import main

SECRET = "s3cret-value"
CONFIG = {
    "lr": 0.1,
    "api_key": SECRET,
    "hub": {"token": SECRET, "user": "me"},
    "uri": f"http://me:{SECRET}@127.0.0.1:1/",
    "passwords": [SECRET, {"deep": SECRET}],
    "client": type("Client", (), {"__repr__": lambda self: f"Client('https://me:{SECRET}@host')"})(),
}
Made = Callable[..., losslog.Run]


def everything_below(folder: Path) -> dict[Path, bytes]:
    return {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def holds_no_secret(folder: Path) -> None:
    assert [each for each, content in everything_below(folder).items() if SECRET.encode() in content] == []


@pytest.fixture
def far(package: Callable[..., str], far_source: str) -> str:
    return package(far_source, "far")


def test_no_secret_of_the_config_reaches_any_file(make_run: Made, far: str, probe: Any, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    run = make_run(plugins=[probe, far], follower=True, config=CONFIG)
    run.log_batch(1.0)
    run.close()
    assert (run.dir / "far.txt").exists()
    holds_no_secret(run.dir)
    assert SECRET not in repr(probe.calls) + repr(probe.run.config) + caplog.text
    assert probe.run.config["lr"] == 0.1


@pytest.mark.parametrize("plugin", ["tensorboard", "console"])
def test_no_secret_reaches_a_plugins_files_or_the_terminal(
    make_run: Made, plugin: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(f"losslog_{plugin}")
    run = make_run(plugins=[plugin], follower=True, config=CONFIG)
    run.log_batch({"a": 1.0})
    run.end_epoch()
    run.close()
    holds_no_secret(run.dir)
    captured = capfd.readouterr()
    assert SECRET not in captured.out + captured.err


def test_secrets_among_options_reach_the_plugin_and_no_file(make_run: Made, package: Callable[..., str]) -> None:
    source = """
    import hashlib, pathlib
    from losslog import hookimpl
    class Plugin:
        def __init__(self, api_key=""):
            self.api_key = api_key
        @hookimpl
        def on_run_start(self, run):
            digest = hashlib.sha256(self.api_key.encode()).hexdigest()
            (pathlib.Path(run.dir) / "digest").write_text(digest)
    """
    package(source, "keyed")
    run = make_run(plugins=["keyed"], options={"keyed": {"api_key": SECRET}}, follower=True)
    run.close()
    assert (run.dir / "digest").read_text() == hashlib.sha256(SECRET.encode()).hexdigest()
    holds_no_secret(run.dir)


def test_what_a_plugin_declares_secret_is_in_no_file_whatever_it_is(
    make_run: Made, package: Callable[..., str], caplog: Any
) -> None:
    source = """
    import hashlib, pathlib
    from losslog import hookimpl
    class Plugin:
        secret_options = ("places",)
        def __init__(self, places=(), often=1):
            self.places = places
        @hookimpl
        def on_run_start(self, run, options):
            digest = hashlib.sha256(repr(self.places).encode()).hexdigest()
            (pathlib.Path(run.dir) / "digest").write_text(f"{digest} {options}")
    """
    package(source, "placed")
    caplog.set_level("DEBUG")
    places = [f"chat://host/{SECRET}", {"deep": SECRET}]
    run = make_run(plugins=["placed"], options={"placed": {"places": places, "often": 2}}, follower=True)
    run.close()
    digest, _, options = (run.dir / "digest").read_text().partition(" ")
    assert digest == hashlib.sha256(repr(places).encode()).hexdigest()
    assert options == "{'placed': {'places': '[redacted]', 'often': 2}}"
    holds_no_secret(run.dir)
    assert SECRET not in caplog.text


def test_a_secret_is_not_on_a_command_line(make_run: Made, far: str) -> None:
    run = make_run(plugins=[far], options={"far": {"where": SECRET}}, follower=True)
    command = psutil.Process(run.stats["follower"]["pid"]).cmdline()
    assert SECRET not in " ".join(command)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_nothing_of_a_run_is_writable_by_others_whatever_the_umask_is(
    make_run: Made, far: str, probe: Any, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        run = make_run(plugins=[probe, far], follower=True)
        run.log_batch(1.0)
        run.end_epoch()
        run.close()
    finally:
        os.umask(before)
    own = [tmp_path / "runs", *(tmp_path / "runs").rglob("*")]
    assert [str(each.relative_to(tmp_path)) for each in own if each.stat().st_mode & 0o002] == []


def test_nothing_listens_on_a_port(make_run: Made, far: str, probe: Any) -> None:
    run = make_run(plugins=[probe, far], follower=True)
    run.log_batch(1.0)
    run.flush()
    for pid in (os.getpid(), run.stats["follower"]["pid"]):
        open_now = psutil.Process(pid).net_connections("inet")
        assert [each for each in open_now if each.status == psutil.CONN_LISTEN] == []


EVIL = "\x1b]0;owned\x07\x1b[31m\x9b1m"


def test_names_do_not_steer_the_terminal(make_run: Made, package: Callable[..., str], finished: Any) -> None:
    source = f"""
    import losslog
    class Bad:
        @losslog.hookimpl
        def on_batch_losses(self, step):
            raise ValueError({EVIL!r})
    run = losslog.Run({EVIL!r}, dir="runs", plugins=["console", Bad()], config={{{EVIL!r}: {EVIL!r}}})
    for _ in range(3):
        run.log_batch({{"loss{EVIL}": 1.0, "b": 2.0}})
    run.log_eval({{"bbox": {{"AP": 0.5, "classes": {{{EVIL!r}: 0.5}}}}, {EVIL!r}: 0.5}})
    run.alert({EVIL!r}, {EVIL!r}, key={EVIL!r})
    run.request_stop({EVIL!r})
    run.should_stop
    run.end_epoch()
    run.log_checkpoint({EVIL!r})
    run.close()
    """
    pytest.importorskip("losslog_console")
    done = finished(source)
    assert done.returncode == 0, done.stderr
    steering = [char for char in done.stdout + done.stderr if not char.isprintable() and char not in "\n\t"]
    assert steering == []
    assert "ValueError" in done.stderr


EVERYWHERE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("on_run_start", {"name": EVIL, "config": {EVIL: EVIL}, "options": {"tensorboard": {"log_dir": EVIL}}, "epochs": 2,
                      "origin": {"plugins": [EVIL], "host": EVIL, "command": [EVIL], "commit": EVIL, "python": EVIL}}),
    *(("on_batch_losses", {"step": step, "epoch": 1, "losses": {EVIL: 1.0, "b": 2.0}, "total": 3.0,
                           "lr": {EVIL: 0.1}, "weights": {EVIL: 1.0}}) for step in range(30)),
    ("on_metrics", {"step": 29, "metrics": {EVIL: 1.0}, "detail": {
        "reach": {EVIL: {EVIL: EVIL}}, "parts": {EVIL: {"tensors": EVIL, "trainable": 1, "lr": [0.1]}}}}),
    ("on_images", {"epoch": 1, "split": EVIL, "name": "hardest", "folder": EVIL, "images": [
        {"id": EVIL, "path": EVIL, "width": 2, "height": 2, "truth": [], "predictions": [], "mistakes": {EVIL: 1}}]}),
    ("on_epoch_end", {"epoch": 1, "losses": {EVIL: 1.0}, "total": 3.0, "hardest": {EVIL: [[1.0, 3, [EVIL]]]}}),
    ("on_eval", {"epoch": 1, "split": EVIL, "metrics": {EVIL: 0.5, "bbox": {"AP": 0.5}, f"m{EVIL}": {"AP": 0.5}}}),
    ("on_checkpoint", {"epoch": 1, "path": f"{EVIL}.pth"}),
    ("on_alert", {"level": "error", "title": EVIL, "text": EVIL, "source": EVIL, "component": EVIL, "key": EVIL,
                  "cause": EVIL, "evidence": {EVIL: EVIL}}),
    ("on_run_end", {"status": EVIL, "error": EVIL, "cost": {EVIL: EVIL}}),
)  # fmt: skip


@pytest.mark.parametrize("line", [
    "ls --dir {dir}", "show {run}", "show {run} --hard", "compare {run} {other}", "diagnose {run}", "watch {run}",
    "watch --plain {run}", "report {run} -o {page}", "prune --dir {dir} --runs 0 --dry-run", "plugins",
    "replay {run} --to report,tensorboard", "compress {run}", "ls --dir {dir} --json", "show {run} --json",
])  # fmt: skip
def test_nothing_in_a_run_folder_steers_the_terminal(
    line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "m\x1b[2J" if os.name == "posix" else "m"
    folders = [tmp_path / "runs" / name / f"20261126-000000-000{each}" for each in (1, 2)]
    for place, folder in enumerate(folders):
        (folder / "cursors").mkdir(parents=True)
        at = {"name": EVIL, "seq": 3, "offset": 5, "skipped": [[1, 1]]}
        (folder / "cursors" / "x.json").write_text(json.dumps(at))
        records = [{"seq": seq, "time": 1.7e9 + seq, "hook": hook, "data": data}
                   for seq, (hook, data) in enumerate(EVERYWHERE[: len(EVERYWHERE) - place])]  # fmt: skip
        (folder / "journal.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    places = {"dir": tmp_path / "runs", "run": folders[0], "other": folders[1], "page": tmp_path / "page.html"}
    code = main([each.format(**places) for each in line.split()])
    told = capfd.readouterr()
    assert code in (0, 1)
    assert told.out + told.err
    assert [char for char in told.out + told.err if not char.isprintable() and char not in "\n\t"] == []


def test_a_blocked_plugin_is_imported_nowhere(
    make_run: Made, package: Callable[..., str], far: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package("import os, pathlib\npathlib.Path(os.environ['MARK']).write_text('imported')", "blocked")
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    monkeypatch.setenv("LOSSLOG_DISABLE", "blocked,console,tensorboard,wandb,mlflow,notify,plateau,trackio")
    run = make_run(plugins="auto", follower=True)
    run.log_batch(1.0)
    run.close()
    assert (run.dir / "far.txt").exists()
    assert not (tmp_path / "mark").exists()
    assert "losslog_test_blocked" not in sys.modules


def test_a_run_folder_from_somebody_else_is_replayed_without_executing_anything(
    make_run: Made, far: str, tmp_path: Path
) -> None:
    run = make_run()
    run.log_batch({"a": 1.0})
    run.close()
    for name in ("losslog.py", "sitecustomize.py", "usercustomize.py", "json.py", "losslog_test_far.py", "conftest.py"):
        (run.dir / name).write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    for command in (["show"], ["replay", "--to", "far"], ["diagnose"]):
        arguments = [sys.executable, "-P", "-m", "losslog", command[0], ".", *command[1:]]
        done = subprocess.run(arguments, cwd=run.dir, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 1), (command, done.stderr)  # diagnose may have something to say
    assert not (tmp_path / "executed").exists()
