"""A run folder from somebody else: what its journal may decide for whoever replays it, and what it may not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.delivery.trust import Trust, from_journal
from losslog.journal.folder import JOURNAL

Made = Callable[..., losslog.Run]
UPLOADS = """
import pathlib
from losslog import hookimpl
class Plugin:
    journal_options = ("colour", "mode=offline")
    def __init__(self, where="home.txt", colour="red", mode="online"):
        self.where, self.about = where, f"{colour} {mode}"
    @hookimpl
    def on_run_start(self, run):
        self.to = pathlib.Path(run.dir, self.where)
        self.to.write_text(self.about + "\\n")
    @hookimpl
    def on_checkpoint(self, path, run):
        with open(self.to, "a") as file:
            file.write(pathlib.Path(run.dir, path).read_text() + "\\n")
"""


@pytest.fixture
def stranger(make_run: Made, package: Callable[..., str]) -> Callable[..., Path]:
    """A finished run with these options in its journal, and checkpoints with these paths."""
    package(UPLOADS, "uploads")

    def make(*checkpoints: str, **options: Any) -> Path:
        run = make_run()
        run.log_batch({"a": 1.0})
        for each in checkpoints:
            run.log_checkpoint(each)
        run.close()
        journal = run.dir / JOURNAL
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        lines[0]["data"]["options"] = {"uploads": options}
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run.dir

    return make


def losslog_(command: str, folder: Path, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "losslog", command, str(folder), *args]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd or folder.parent, timeout=60)


def uploaded(folder: Path, name: str = "home.txt") -> list[str]:
    return (folder / name).read_text().splitlines()


@pytest.mark.parametrize("command", ["replay", "follow"])
def test_a_journal_decides_what_is_harmless_and_the_rest_is_said(stranger: Any, tmp_path: Path, command: str) -> None:
    folder = stranger(where=str(tmp_path / "elsewhere"), colour="blue", mode="online")
    done = losslog_(command, folder, "--to", "uploads")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "elsewhere").exists()
    assert uploaded(folder) == ["blue online"]  # the plugin's own default, not the journal's word
    assert "not taken from the journal: where=" in done.stderr
    assert "elsewhere" in done.stderr
    assert "--trust" in done.stderr


def test_a_value_may_be_harmless_where_another_is_not(stranger: Any) -> None:
    folder = stranger(mode="offline")
    done = losslog_("replay", folder, "--to", "uploads")
    assert (done.returncode, uploaded(folder)) == (0, ["red offline"]), done.stderr
    assert "not taken" not in done.stderr


def test_trust_says_what_it_obeys(stranger: Any, tmp_path: Path) -> None:
    folder = stranger(where=str(tmp_path / "elsewhere"), colour="blue")
    done = losslog_("replay", folder, "--to", "uploads", "--trust")
    assert (tmp_path / "elsewhere").read_text() == "blue online\n"
    assert f"the journal is trusted with where='{tmp_path / 'elsewhere'}'" in done.stderr


def test_the_command_line_beats_a_trusted_journal(stranger: Any, tmp_path: Path) -> None:
    folder = stranger(where=str(tmp_path / "elsewhere"))
    losslog_("replay", folder, "--to", "uploads", "--trust", "-o", "uploads.where=mine.txt")
    assert uploaded(folder, "mine.txt") == ["red online"]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("options", [5, ["where"], {"batch_every": -1}, {"batch_every": "x"}, {"colour": None}])
def test_options_of_any_shape_are_borne(stranger: Any, options: Any) -> None:
    folder = stranger()
    journal = folder / JOURNAL
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[0]["data"]["options"] = {"uploads": options}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = losslog_("replay", folder, "--to", "uploads")
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_one_half_here_and_one_half_there_is_refused(stranger: Any, tmp_path: Path) -> None:
    folder = stranger(where=str(tmp_path / "elsewhere"))
    losslog_("replay", folder, "--to", "uploads", "--trust")
    done = losslog_("replay", folder, "--to", "uploads")
    assert done.returncode == 2
    assert "only the journal knows (where)" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert losslog_("replay", folder, "--to", "uploads", "--from-start").returncode == 0


def test_the_report_of_ones_own_run_says_trust(make_run: Made, package: Callable[..., str]) -> None:
    package(
        """
        from losslog import BackendUnavailable, hookimpl
        class Plugin:
            def __init__(self, place=""):
                pass
            @hookimpl
            def on_batch_losses(self):
                raise BackendUnavailable("away")
        """,
        "away",
    )
    for options, end in (({"place": "x"}, "--to away --trust"), ({}, "--to away")):
        run = make_run(plugins=["away"], options={"away": options})
        run.log_batch(1.0)
        run.close(1.0)
        said = losslog.delivery.report.end_report("finished", run.stats, run.dir)
        assert said[-1][1].endswith(end)


SECRET = "of somebody"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "id_rsa"
    path.write_text(SECRET)
    return path


def paths_out(folder: Path, secret: Path) -> dict[str, str]:
    """Ways out of a run folder."""
    home = folder / "checkpoints"
    (home / "many").mkdir(parents=True)
    (home / "link").symlink_to(secret)
    (home / "folder").symlink_to(secret.parent, target_is_directory=True)
    (home / "many" / "deep").symlink_to(secret)
    return {
        "absolute": str(secret),
        "upwards": os.path.relpath(secret, folder),
        "link": "checkpoints/link",
        "through a link": f"checkpoints/folder/{secret.name}",
        "inside and out again": f"checkpoints/many/../../../../../{secret.name}",
        "a folder with a link": "checkpoints/many",
        "nul": "a\0b",
    }


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_only_checkpoints_below_the_run_folder_are_uploaded(stranger: Any, secret: Path) -> None:
    folder = stranger("inside", *["?"] * 8)
    (folder / "inside").write_text("weights")
    ways = [*paths_out(folder, secret).values(), "checkpoints/pipe"]
    os.mkfifo(folder / "checkpoints" / "pipe")
    journal = folder / JOURNAL
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line, way in zip([each for each in lines if each["data"].get("path") == "?"], ways, strict=True):
        line["data"]["path"] = way
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = losslog_("replay", folder, "--to", "uploads", "--trust")
    assert done.returncode == 0, done.stderr
    assert uploaded(folder) == ["red online", "weights"]
    assert done.stderr.count("is not in the run folder, and another process logged it: not handed on") == 1


def test_a_folder_named_on_the_command_line_is_a_place_too(stranger: Any, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "best.pt").write_text("weights")
    folder = stranger(str(tmp_path / "scratch" / "best.pt"))
    losslog_("replay", folder, "--to", "uploads", "--checkpoints-in", str(tmp_path / "scratch"))
    assert uploaded(folder) == ["red online", "weights"]


@pytest.mark.parametrize("follower", [False, True])
def test_who_resumes_a_strangers_run_uploads_only_what_he_logs_himself(
    stranger: Any, make_run: Made, secret: Path, tmp_path: Path, follower: bool
) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_text("mine")
    folder = stranger(str(secret))
    run = make_run(name=None, dir=folder.parent.parent, resume=folder, plugins=["uploads"], follower=follower)
    run.log_checkpoint(mine)
    run.close()
    assert uploaded(folder)[1:] == ["mine"]


def test_ones_own_checkpoints_may_lie_anywhere(make_run: Made, package: Callable[..., str], tmp_path: Path) -> None:
    package(UPLOADS, "uploads")
    (tmp_path / "best.pt").write_text("weights")
    run = make_run(plugins=["uploads"], follower=True)
    run.log_checkpoint(tmp_path / "best.pt")
    run.close()
    assert uploaded(run.dir) == ["red online", "weights"]


def test_what_is_not_there_is_the_plugins_business(tmp_path: Path) -> None:
    assert Trust().admits({"path": "checkpoints/gone.pt"}, tmp_path, 3)
    assert not Trust().admits({"path": "../gone.pt"}, tmp_path, 3)
    assert not Trust(since=4).admits({"path": "../gone.pt"}, tmp_path, 3)
    assert Trust(since=4).admits({"path": "../gone.pt"}, tmp_path, 4)


def test_nothing_is_harmless_unless_the_plugin_says_so() -> None:
    assert from_journal(object, {"a": 1, "batch_every": 2, "key": "[redacted]"}) == ({"batch_every": 2}, {"a": 1})


LOCAL = {
    "mlflow": {"tracking_uri", "experiment_id", "run_id", "parent_run_id", "register"},
    "wandb": {
        "entity",
        "mode",
        "reuse",
        "base_url",
        "api_key",
        "identity_token_file",
        "x_stats_open_metrics_endpoints",
    },
    "tensorboard": {"log_dir", "writer"},
    "trackio": set(),
    "notify": {"urls", "burst", "every", "max_age"},
    "console": set(),
    "plateau": set(),
}


@pytest.mark.parametrize("name", LOCAL)
def test_what_no_journal_decides(name: str) -> None:
    module = pytest.importorskip(f"losslog_{name}.plugin")
    (factory,) = [each for key, each in vars(module).items() if key.endswith("Plugin")]
    hostile = dict.fromkeys([*LOCAL[name], "anything"], "http://127.0.0.1:9")
    assert from_journal(factory, hostile) == ({}, hostile)


# ---------------------------------------------------------------------- links, pipes, devices

LOOK = (["show"], ["ls"], ["report", "-o", "{out}"], ["watch"], ["diagnose"])
FINISH = (["replay", "--to", "uploads"], ["follow", "--to", "uploads"])


def look(command: list[str], folder: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    name, *rest = [each.format(out=tmp_path / "page.html") for each in command]
    where = ["--dir", str(folder.parent.parent)] if name == "ls" else [str(folder)]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    line = [sys.executable, "-m", "losslog", name, *where, *rest]
    return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=30, env=environment)


def state(folder: Path) -> dict[str, Any]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.lstat().st_mtime_ns
            for path in [folder, *folder.rglob("*")] if path.is_dir() or path.is_file()}  # fmt: skip


@pytest.mark.sampled(8)
@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("command", [*LOOK, *FINISH], ids=lambda each: each[0])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "device"])
def test_a_journal_that_is_no_file_of_its_own_is_refused(
    stranger: Any, tmp_path: Path, command: list[str], kind: str
) -> None:
    folder = stranger()
    thesis = tmp_path / "thesis.bin"
    thesis.write_bytes((folder / JOURNAL).read_bytes()[:-20])  # a crashed run's: finishing it would cut and append
    before = thesis.read_bytes()
    (folder / JOURNAL).unlink()
    if kind == "link":
        (folder / JOURNAL).symlink_to(thesis)
    elif kind == "hard link":
        (folder / JOURNAL).hardlink_to(thesis)
    elif kind == "pipe":
        os.mkfifo(folder / JOURNAL)
    else:
        (folder / JOURNAL).symlink_to("/dev/zero")
    done = look(command, folder, tmp_path)
    assert thesis.read_bytes() == before
    assert "Traceback" not in done.stderr
    if kind != "hard link" or command[0] == "replay":  # to read a second name is harmless
        assert done.returncode == 2 or command == ["ls"]
        assert len(done.stderr.splitlines()) <= 1


@pytest.mark.sampled(10)
@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("command", [*LOOK, *FINISH], ids=lambda each: each[0])
@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "folder", "link"])
def test_a_cursor_of_any_kind_ends(stranger: Any, tmp_path: Path, command: list[str], kind: str) -> None:
    folder = stranger()
    (folder / "cursors").mkdir(exist_ok=True)
    cursor = folder / "cursors" / "uploads.json"
    if kind == "pipe":
        os.mkfifo(cursor)
    elif kind == "device":
        cursor.symlink_to("/dev/zero")
    elif kind == "huge":
        with open(cursor, "wb") as file:
            file.truncate(1 << 33)
    elif kind == "folder":
        cursor.mkdir()
    else:
        cursor.symlink_to(tmp_path / "elsewhere")
    done = look(command, folder, tmp_path)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("command", FINISH, ids=lambda each: each[0])
@pytest.mark.parametrize("name", ["cursors", "tensorboard", "home.txt", "tensorboard/batch", "wandb", "cursors/x.tmp"])
def test_nothing_is_written_through_a_link(stranger: Any, tmp_path: Path, command: list[str], name: str) -> None:
    folder = stranger()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(elsewhere)
    done = look(command, folder, tmp_path)
    assert done.returncode == 2
    assert f"{name} is a link to {elsewhere}" in done.stderr
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_strangers_run_with_a_link_is_not_resumed(stranger: Any, make_run: Made, tmp_path: Path) -> None:
    folder = stranger()
    (folder / "tensorboard").symlink_to(tmp_path)
    with pytest.raises(OSError, match="is a link to"):
        make_run(name=None, dir=folder.parent.parent, resume=folder)


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_links_that_lead_nowhere_else_are_fine(stranger: Any, tmp_path: Path) -> None:
    folder = stranger()
    (folder / "wandb" / "run").mkdir(parents=True)
    (folder / "wandb" / "latest-run").symlink_to("run")
    (folder / "wandb" / "run" / "debug-core.log").symlink_to(tmp_path / "uploads.log")
    (tmp_path / "uploads.log").write_text("wandb's own")
    (folder / "checkpoints").symlink_to(tmp_path)
    assert look(["replay", "--to", "uploads"], folder, tmp_path).returncode == 0


@pytest.mark.parametrize("command", LOOK, ids=lambda each: each[0])
@pytest.mark.parametrize("ended", [True, False])
def test_who_only_looks_writes_nothing(stranger: Any, tmp_path: Path, command: list[str], ended: bool) -> None:
    folder = stranger()
    if not ended:
        content = (folder / JOURNAL).read_bytes()
        (folder / JOURNAL).write_bytes(content[: content.rindex(b"{", 0, -30)] + b'{"torn')
    losslog_("replay", folder, "--to", "uploads") if ended else None
    before = state(folder.parent.parent)
    done = look(command, folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert state(folder.parent.parent) == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="POSIX permissions, and root has them all")
@pytest.mark.parametrize("command", LOOK, ids=lambda each: each[0])
def test_a_folder_that_can_only_be_read_can_be_looked_at(stranger: Any, tmp_path: Path, command: list[str]) -> None:
    folder = stranger()
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert look(command, folder, tmp_path).returncode == 0
    finally:
        folder.chmod(0o755)


def test_a_file_where_cursors_belong_is_said(stranger: Callable[..., Path]) -> None:
    folder = stranger()
    shutil.rmtree(folder / "cursors", ignore_errors=True)
    (folder / "cursors").write_text("x")
    done = losslog_("replay", folder, "--to", "uploads")
    assert done.returncode == 2
    assert "cursors is no folder: remove it" in done.stderr
    assert "Errno" not in done.stderr
