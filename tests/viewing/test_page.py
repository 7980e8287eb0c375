"""The report as a file: what is in it, what can never be in it, how large it is."""

from __future__ import annotations

import html
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.journal.folder import JOURNAL
from losslog.viewing import notebook
from losslog.viewing.figures import figures
from losslog.viewing.page import POLICY, page
from losslog.viewing.parts import story_of

Write = Callable[..., Path]
ROOT = Path(__file__).parents[2]
HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>&{{library}}\u2028\"'"


def data_of(text: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def made(*folders: Path) -> str:
    return page([story_of(folder) for folder in folders])


def test_the_command(tmp_path: Path, write_run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_run(tmp_path / "a" / "20260101-000000-aaaa", "a")
    two = write_run(tmp_path / "b" / "20260101-000001-bbbb", "b", seed=1)
    target = tmp_path / "out.html"
    assert main(["report", "20260101-000000", str(two), "--dir", str(tmp_path), "-o", str(target)]) == 0
    assert "out.html" in capsys.readouterr().out
    assert [run["name"] for run in data_of(target.read_text("utf-8"))["runs"]] == ["a", "b"]
    assert main(["report", str(one)]) == 0
    assert (one / "report.html").is_file()
    assert sorted(path.name for path in two.iterdir()) == [JOURNAL]


def test_a_place_that_refuses(tmp_path: Path, write_run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "r")
    assert main(["report", str(folder), "-o", str(tmp_path / "no" / "x.html")]) == 2
    assert "say -o FILE" in capsys.readouterr().err


def test_a_folder_gets_the_page(
    tmp_path: Path, write_run: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "r")
    (tmp_path / "to").mkdir()
    monkeypatch.chdir(tmp_path / "to")
    for said in (".", "./", "../to", str(tmp_path / "to"), str(tmp_path / "to") + "/", ""):
        assert main(["report", str(folder), "-o", said]) == 0
        (tmp_path / "to" / "report.html").unlink()
    for said in ("no/", "no/x.html"):
        assert main(["report", str(folder), "-o", said]) == 2
        assert capsys.readouterr().err == (
            f"losslog report: {said} cannot be written (there is no folder no): make it, or say -o FILE\n"
        )
    (tmp_path / "to" / "report.html").mkdir()
    assert main(["report", str(folder), "-o", "."]) == 2
    assert f".{os.getpid()}" not in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["report.html"]


def test_a_series_that_does_not_move_has_one_value(tmp_path: Path, book: Any) -> None:
    run = book(tmp_path / "r")
    run.start("r")
    dice = random.Random(1)
    for step in range(3000):
        losses = {"flat": 0.30005 * (1 + 3e-8 * dice.random()), "tiny": 1.0 + 1e-5 * dice.random(), "big": 1e308}
        run.batch(step, losses | {"both": 1.7e308 * (-1) ** step}, total=1.0)
    found = figures(story_of(tmp_path / "r"))["losses"]
    assert set(found["flat"]["mean"]) == {0.30005}
    assert len(set(found["tiny"]["mean"])) > 100
    assert set(found["big"]["mean"]) <= {1e308, None}


def test_what_was_set_and_the_rates_part_on_the_page(tmp_path: Path, book: Any) -> None:
    for name in ("a", "b"):
        run = book(tmp_path / name)
        run.start(name)
        for step in range(100):
            run.batch(step, {"x": 1.0}, lr=0.01 if name == "a" or step < 60 else 0.001)
    (comparison,) = data_of(page([story_of(tmp_path / name) for name in "ab"]))["comparison"]
    assert "learning rate: lr: 0.01 -> 0.001 from step 60" in comparison["lines"]


def test_nothing_a_run_says_becomes_markup(tmp_path: Path, book: Any) -> None:
    run = book(tmp_path / "r")
    run.start(HOSTILE, {HOSTILE: HOSTILE, "api_key": "sk-123", "url": "http://me:pass@host/x", "half": "\ud800"})
    for step in range(20):
        run.batch(step, {HOSTILE: 1.0})
    run.add("on_metrics", step=1, epoch=None, metrics={HOSTILE: 1.0})
    run.add("on_eval", epoch=1, step=1, split=HOSTILE, metrics={HOSTILE: {"AP": 0.5, "classes": {HOSTILE: 0.1}}})
    run.add("on_checkpoint", epoch=1, step=1, path=HOSTILE)
    run.alert(HOSTILE, 3, HOSTILE)
    run.end(HOSTILE)
    text = made(tmp_path / "r")
    clean = made(Path(str(tmp_path / "r")))  # the same again: nothing depends on the order of anything
    assert data_of(text)["runs"] == data_of(clean)["runs"]
    assert text.count("<script") == 3
    assert text.count("</script>") == 3
    assert text.count("<img") == text.count("<!--<img") == 0
    assert data_of(text)["runs"][0]["name"] == HOSTILE
    for secret in ("sk-123", "pass@host"):
        assert secret not in text
    assert POLICY in text


def test_it_asks_for_nothing(tmp_path: Path, write_run: Write) -> None:
    text = made(write_run(tmp_path / "r"))
    assert not re.findall(r"<(?:link|img|iframe|script)[^>]+(?:src|href)\s*=\s*[\"'](?!data:)", text)
    assert not re.findall(r"@import|url\(", text)


@pytest.mark.parametrize("count", [1, 8])
def test_its_size_is_bounded(tmp_path: Path, write_run: Write, count: int) -> None:
    names = tuple(f"loss_{place:03}" for place in range(200))
    folders = [write_run(tmp_path / str(seed), seed=seed, names=names, epochs=2, per_epoch=60) for seed in range(count)]
    assert len(made(*folders).encode()) < 2_000_000


def test_a_long_run_is_small_and_keeps_its_spike(tmp_path: Path, book: Any) -> None:
    run = book(tmp_path / "r")
    run.start()
    noise = random.Random(0)
    with run.path.open("ab") as file:
        for step in range(30_000):
            value = 40.0 if step == 12_345 else noise.random()
            file.write(b'{"seq": %d, "time": 1.0, "hook": "on_batch_losses", "data": {"step": %d, "epoch": 1, "losses":'
                       b' {"a": %r, "b": 1.0}, "total": %r, "lr": 0.1}}\n'
                       % (step + 1, step, value, value + 1))  # fmt: skip
    text = made(tmp_path / "r")
    (figures,) = data_of(text)["runs"]
    drawn = figures["losses"]["a"]
    at = drawn["hi"].index(40)
    assert figures["xs"][drawn["x"]][at] + drawn["at"][at] == 12_345
    assert len(text) < 300_000


@pytest.mark.parametrize("text", [b"", b'{"torn', b"\xff\n\n[]\n"])
def test_a_run_without_anything(tmp_path: Path, text: bytes) -> None:
    (tmp_path / JOURNAL).write_bytes(text)
    (run,) = data_of(made(tmp_path))["runs"]
    assert (run["steps"], run["status"]) == (0, "crashed")


def test_the_vendored_library_is_as_published() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "check_vendored.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_run_is_its_report_where_a_notebook_shows_it(
    tmp_path: Path, make_run: Callable[..., losslog.Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    run.log_batch({"it's": 1.0, "b&<": 2.0})
    run.close()
    shown = run._repr_html_()
    assert shown == losslog.load(run.dir)._repr_html_() or len(shown) > 90_000
    assert shown.startswith("<iframe sandbox='allow-scripts'")
    assert shown.count("'") == 6  # of its attributes alone
    assert html.unescape(shown).count("</iframe>") == 1
    assert notebook.inline(tmp_path) is None


def test_importing_losslog_imports_no_page() -> None:
    code = "import sys, losslog; print([name for name in sys.modules if name.startswith('losslog.viewing.page')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_each_loss_trains_is_a_table(tmp_path: Path, book: Any) -> None:
    book = book(tmp_path / "r")
    book.start()
    part = {"tensors": 3, "trainable": 3, "size": 9, "lr": [0.1], "outside": 0}
    reach = {"loss_a": {"body": 3}, HOSTILE: {}}
    for step in range(4):
        book.batch(step, {"loss_a": 1.0, HOSTILE: 2.0})
        if step == 2:
            book.add("on_metrics", step=2, epoch=None, metrics={"reach/loss_a": 3},
                     detail={"reach": reach, "parts": {"body": part}})  # fmt: skip
            book.add("on_metrics", step=2, epoch=None, metrics={"grad_share/loss_a": 0.75}, detail=None)
    book.end()
    text = made(tmp_path / "r")
    assert HOSTILE not in text
    (run,) = data_of(text)["runs"]
    assert run["trainsAt"] == 2
    assert run["trains"][:2] == [["tensors trained", "body", "gradient"], ["loss_a", "3", "75 %"]]
    assert run["trains"][3:] == [["of", "3", ""], ["lr", "0.1", ""]]
