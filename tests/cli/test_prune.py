"""``losslog prune``: what was listed goes, after a yes; nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.cli.prune import shown


@pytest.fixture
def made(make_run: Callable[..., losslog.Run]) -> Callable[..., Path]:
    def make(name: str = "a", epochs: int = 0, *, close: bool = True) -> Path:
        run = make_run(name=name)
        (run.dir / "checkpoints").mkdir()
        for epoch in range(1, epochs + 1):
            (run.dir / "checkpoints" / f"epoch_{epoch:03d}.pth").write_bytes(bytes(1000))
        if epochs:
            (run.dir / "checkpoints" / "best.pth").write_bytes(bytes(1000))
        if close:
            run.close()
        return run.dir

    return make


@pytest.fixture
def prune(tmp_path: Path) -> Callable[..., int]:
    return lambda *words: main(["prune", "--dir", str(tmp_path / "runs"), *words])


def test_old_runs_of_each_name_go(made: Any, prune: Any, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, other = made("a"), made("a"), made("b")
    assert prune("--runs", "1", "--yes") == 0
    assert [old.exists(), new.exists(), other.exists()] == [False, True, True]
    out = capsys.readouterr().out
    assert f"{old}  (1 newer runs of a)" in out
    assert out.endswith("removed 1 of 1\n")


def test_a_name_without_runs_goes_too(made: Any, prune: Any) -> None:
    folder = made("a")
    assert prune("--runs", "0", "--name", "a", "--yes") == 0
    assert not folder.parent.exists()


def test_runs_that_ended_long_ago_go(made: Any, prune: Any) -> None:
    old, new = made("a"), made("a")
    os.utime(old / "journal.jsonl", (1e9, 1e9))
    assert prune("--older-than", "30", "--yes") == 0
    assert [old.exists(), new.exists()] == [False, True]


def test_old_checkpoints_go_and_the_best_stays(made: Any, prune: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made("a", 3)
    assert prune("--checkpoints", "1", "--yes") == 0
    assert sorted(each.name for each in (folder / "checkpoints").iterdir()) == ["best.pth", "epoch_003.pth"]
    assert "1.0 kB" in capsys.readouterr().out


def test_what_a_loop_logged_goes_too(make_run: Any, prune: Any, tmp_path: Path) -> None:
    run = make_run(name="a")
    (tmp_path / "elsewhere.pth").touch()
    (run.dir / "checkpoint-7").mkdir()
    for name in (
        "ck1.pth",
        "best.pth",
        "../../../elsewhere.pth",
        "journal.jsonl",
        "checkpoint-7",
        "ck2.pth",
        "ck3.pth",
    ):
        (run.dir / name).parent.mkdir(exist_ok=True)
        (run.dir / name).touch() if not (run.dir / name).exists() else None
        run.log_checkpoint(name)
    run.close()
    assert prune("--checkpoints", "1", "--yes") == 0
    assert sorted(each.name for each in run.dir.iterdir() if "journal" not in each.name and each.is_file()) == [
        "best.pth", "ck3.pth"
    ]  # fmt: skip
    assert not (run.dir / "checkpoint-7").exists()
    assert (tmp_path / "elsewhere.pth").exists()
    assert (run.dir / "journal.jsonl").exists()


def test_names_may_have_wildcards_and_one_that_is_none_is_said(
    made: Any, prune: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [made("exp1"), made("exp2"), made("other")]
    assert prune("--runs", "0", "--name", "nope", "--yes") == 0
    assert "no runs named nope under " in capsys.readouterr().out
    assert prune("--runs", "0", "--name", "exp*", "--yes") == 0
    assert [each.exists() for each in folders] == [False, False, True]


def test_a_live_run_stays(made: Any, prune: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made("a", 3, close=False)
    assert prune("--runs", "0", "--checkpoints", "1", "--yes") == 0
    assert len([*(folder / "checkpoints").iterdir()]) == 4
    assert capsys.readouterr().out == "nothing to remove\n"


@pytest.mark.parametrize(("words", "end"), [(["--dry-run"], "would remove 1 of these, "), ([], None)], ids=str)
def test_nothing_goes_without_a_yes(
    made: Any, prune: Any, words: list[str], end: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made("a")
    assert prune("--runs", "0", *words) == (2 if end is None else 0)
    assert folder.exists()
    captured = capsys.readouterr()
    if end is None:
        assert captured.err == "losslog prune: there is no terminal to ask at: say --yes, or --dry-run to look only\n"
    else:
        assert captured.out.splitlines()[-1].startswith(end)


@pytest.mark.parametrize(("answer", "gone"), [("y", True), ("", False), ("no", False)])
def test_at_a_terminal_it_asks(made: Any, prune: Any, monkeypatch: pytest.MonkeyPatch, answer: str, gone: bool) -> None:
    folder, asked = made("a"), []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    assert prune("--runs", "0") == 0
    assert folder.exists() is not gone
    assert asked[0].startswith("remove 1 of these, ")


def test_saying_nothing_is_wrong_usage(prune: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune() == 2
    assert "say what may go: --runs N, --older-than DAYS or --checkpoints N" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e12, "2.5 TB")])
def test_sizes(size: float, text: str) -> None:
    assert shown(size) == text


def links(link: Path, target: Path) -> None:
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("this platform lets this user make no links")


@pytest.mark.parametrize("words", [("--checkpoints", "1"), ("--runs", "0"), ("--older-than", "1")])
@pytest.mark.parametrize("what", ["checkpoints", "epoch_001.pth", "run", "name"])
def test_nothing_outside_goes_through_a_link(
    what: str, words: tuple[str, ...], made: Any, prune: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, mine = made("a", 3), tmp_path / "mine"
    os.utime(folder / "journal.jsonl", (1e9, 1e9))
    if what == "checkpoints":
        (folder / "checkpoints").rename(mine)
        links(folder / "checkpoints", mine)
    elif what == "epoch_001.pth":
        mine.write_bytes(b"precious")
        (folder / "checkpoints" / what).unlink()
        links(folder / "checkpoints" / what, mine)
    else:
        place = folder if what == "run" else folder.parent
        place.rename(mine)
        links(place, mine)
    before = sorted(str(each) for each in mine.rglob("*"))
    code = prune(*words, "--yes")
    assert mine.exists()
    assert sorted(str(each) for each in mine.rglob("*")) == before
    told = capsys.readouterr().err
    refused = what in ("run", "name") or (what, words[0]) == ("checkpoints", "--checkpoints")
    assert code == int(refused)
    assert (f"leads to {mine.resolve()}, out of the folder it is in" in told) == refused


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_an_odd_run_folder_costs_the_others_nothing(
    kind: str, made: Any, prune: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, good = made("a", 3), made("b", 3)
    (odd / "journal.lock").unlink(missing_ok=True)
    if kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("there are no pipes with names here")
        os.mkfifo(odd / "journal.lock")
    else:
        links(odd / "journal.lock", tmp_path)
    assert prune("--checkpoints", "1", "--yes") == 1
    assert sorted(each.name for each in (good / "checkpoints").iterdir()) == ["best.pth", "epoch_003.pth"]
    assert len([*(odd / "checkpoints").iterdir()]) == 4
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("not touched: ")
    assert f"{odd / 'journal.lock'} is" in said


def test_the_engines_own_go_though_the_journal_has_none_of_them(made: Any, prune: Any) -> None:
    folder = made("a", 2)
    (folder / "checkpoints" / "mine.pth").touch()
    assert prune("--checkpoints", "1", "--yes") == 0
    assert sorted(each.name for each in (folder / "checkpoints").iterdir()) == ["best.pth", "epoch_002.pth", "mine.pth"]


def test_a_checkpoint_with_a_name_that_no_disk_takes_is_none(made: Any, prune: Any) -> None:
    folder = made("a")
    with (folder / "journal.jsonl").open("a") as file:
        for seq, place in enumerate(("a\0b.pth", "x" * 5000 + ".pth", "\ud800.pth"), 5):
            data = {"path": place, "epoch": 1, "step": None}
            file.write(json.dumps({"seq": seq, "time": 1.7e9, "hook": "on_checkpoint", "data": data}) + "\n")
    assert prune("--checkpoints", "1", "--yes") == 0
