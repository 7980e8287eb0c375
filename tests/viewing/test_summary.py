"""Summaries beside journals, and ``losslog ls``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.cli.ls import HEADINGS, cells, table
from losslog.journal.folder import JOURNAL
from losslog.recording.highlights import worst
from losslog.viewing import state
from losslog.viewing.summary import Summary, kept_at, row_of, summary_of

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, write_run: Write) -> Path:
    return write_run(tmp_path / "made" / "20260101-000000-aaaa")


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["ls", *words, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_the_facts_of_a_run(folder: Path) -> None:
    row = row_of(folder)
    assert (row["name"], row["status"], row["epoch"], row["epochs"], row["steps"]) == ("made", "finished", 4, 4, 200)
    assert row["best"] == {"mAP/bbox_AP": pytest.approx(0.4)}
    assert row["total"] == json.loads((folder / JOURNAL).read_bytes().splitlines()[-2])["data"]["total"]


def test_a_kept_summary_is_the_same_as_a_new_one(folder: Path) -> None:
    made = summary_of(folder).facts
    kept = Summary(folder)
    assert kept.load()
    assert kept.facts == made
    assert not kept.read()  # nothing is left to be read


def test_an_old_summary_is_brought_up_to_date(folder: Path) -> None:
    whole = (folder / JOURNAL).read_bytes()
    for cut in range(0, len(whole), 7001):  # also inside a line
        (folder / JOURNAL).write_bytes(whole[:cut])
        summary_of(folder)
        (folder / JOURNAL).write_bytes(whole)
        new = summary_of(folder, keep=False)
        kept_at(folder).unlink()
        assert new.facts == summary_of(folder).facts
        kept_at(folder).unlink()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"version": 1, "size": "x"}', b'{"version": 99}'])
def test_a_torn_or_foreign_summary_is_made_anew(folder: Path, text: bytes) -> None:
    kept_at(folder).parent.mkdir(parents=True, exist_ok=True)
    kept_at(folder).write_bytes(text)
    assert row_of(folder)["steps"] == 200


def test_a_summary_of_another_journal_is_not_believed(folder: Path, tmp_path: Path, write_run: Write) -> None:
    other = write_run(tmp_path / "other" / "20260101-000000-bbbb", name="other", seed=1, epochs=2)
    summary_of(other)
    shutil.copy(kept_at(other), kept_at(folder))
    assert row_of(folder)["name"] == "made"
    body = json.loads(kept_at(folder).read_text("ascii"))
    body["kept"][0]["ended"] = "crashed"  # edited by hand
    kept_at(folder).write_text(json.dumps(body), "ascii")
    assert row_of(folder)["status"] == "finished"


def test_a_journal_that_became_shorter(folder: Path) -> None:
    summary_of(folder)
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    (folder / JOURNAL).write_bytes(b"".join(lines[:51]))
    row = row_of(folder)
    assert (row["steps"], row["status"]) == (50, "crashed")


def test_what_a_resume_voids_is_not_counted(tmp_path: Path, book: Any) -> None:
    made = book(tmp_path / "r" / "20260101-000000-aaaa")
    made.start("r")
    for step in range(100):
        made.batch(step, {"a": 1.0}, epoch=1 + step // 50)
    summary_of(made.folder)  # what is kept does not know of the resume yet
    made.add("on_resume", epoch=1, step=49)
    for step in range(50, 60):
        made.batch(step, {"a": 2.0}, epoch=2)
    made.end()
    assert row_of(made.folder)["steps"] == 60


def test_a_garbled_line_is_counted_and_skipped(folder: Path) -> None:
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    lines[10] = lines[10][:60] + b"\n"
    lines[20] = b"\x00\xff\n"
    (folder / JOURNAL).write_bytes(b"".join(lines))
    summary = summary_of(folder)
    assert (summary.facts["garbled"], summary.facts["counts"]["on_batch_losses"]) == (2, 198)


def test_a_folder_that_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr("losslog.viewing.summary.os.replace", refuse)
    monkeypatch.setattr(state, "is_locked", refuse)
    (folder / JOURNAL).write_bytes(b"".join((folder / JOURNAL).read_bytes().splitlines(keepends=True)[:-1]))
    assert row_of(folder)["status"] == "running"  # it grew a moment ago; nothing else can be known
    assert [path.name for path in folder.iterdir()] == [JOURNAL]


def test_ls_sorts_and_chooses(tmp_path: Path, write_run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    for place, (name, ended) in enumerate([("one", "finished"), ("two", "failed"), ("one", None)]):
        made = write_run(tmp_path / name / f"20260101-00000{place}-aaaa", name=name, ended=ended, epochs=1)
        text = (made / JOURNAL).read_text("ascii").replace('"time": 1764', f'"time": {1764 + place}')
        (made / JOURNAL).write_text(text, "ascii")
    root = ["--dir", str(tmp_path)]
    assert [row["status"] for row in listed(capsys, *root)] == ["crashed", "failed", "finished"]
    assert [row["name"] for row in listed(capsys, *root, "--name", "t*")] == ["two"]
    assert [row["name"] for row in listed(capsys, *root, "--status", "finished,crashed")] == ["one", "one"]
    assert len(listed(capsys, *root, "-n", "2")) == 2
    with pytest.raises(SystemExit):
        main(["ls", *root, "--status", "finish"])
    assert "no status 'finish'" in capsys.readouterr().err


def test_ls_of_a_real_run(make_run: Callable[..., losslog.Run], capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    run.log_batch({"a": float("nan")})
    run.flush()
    root = str(run.dir.parent.parent)
    assert listed(capsys, "--dir", root)[0]["status"] == "running"
    run.close()
    row = listed(capsys, "--dir", root)[0]
    assert (row["status"], row["total"], row["alerts"]) == ("finished", None, 1)


def test_ls_cannot_be_steered(tmp_path: Path, write_run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "x" / "20260101-000000-aaaa", name="\x1b[2J\u202eevil")
    (tmp_path / "y" / "z").mkdir(parents=True)
    (tmp_path / "y" / "z" / JOURNAL).mkdir()
    assert main(["ls", "--dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "unreadable" in out


def test_ls_where_nothing_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs under {tmp_path}/ yet\n"


@pytest.mark.parametrize("width", [*range(20, 150, 3), 40, 80, None])
def test_a_number_is_never_cut(width: int | None) -> None:
    row = {
        "name": "a-long-name-of-a-run-that-is-cut-somewhere",
        "id": "20260101-000000-aaaa",
        "status": "finished",
        "when": "2026-01-01 00:00",
        "took": "7:03:20",
        "epochs": "100/100",
        "total": "0.123456789",
        "best AP": "bbox 0.999",
        "worst": "loss_mask has stalled for a long time now",
        "alerts": "12",
        "undelivered": "-",
    }
    heading, line = table([row, dict.fromkeys(row, "-")], width)[:2]
    assert width is None or len(line) <= max(width, 20)
    shown = [each for each in HEADINGS if each in heading]
    for key in ("id", *(each for each in ("epochs", "total", "best AP", "alerts", "took", "when") if each in shown)):
        assert row[key] in line
    assert ("bbox" in line) is ("best AP" in shown)
    assert ("~" in line) is (width is not None and ("worst" in shown or "name" in shown))


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ({"mAP/segm_AP": 0.9, "mAP/bbox_AP": 0.5}, "bbox 0.500"), ({"mAP/segm_AP": 0.9}, "segm 0.900"),
        ({"mAP/keypoints_AP": 0.9, "mAP/segm_AP": 0.1}, "segm 0.100"), ({"mAP/z_AP": 0.9, "mAP/y_AP": 0.1}, "y 0.100"),
        ({}, "-"),
    ],
)  # fmt: skip
def test_best_ap_is_of_one_kind(folder: Path, best: dict[str, float], said: str) -> None:
    assert cells(row_of(folder) | {"best": best})["best AP"] == said


@pytest.mark.parametrize("missing", [(), (1,), (2,), (1, 2)])
def test_show_and_ls_count_epochs_alike(
    tmp_path: Path, book: Any, capsys: pytest.CaptureFixture[str], missing: tuple[int, ...]
) -> None:
    run = book(tmp_path / "x" / "20260101-000000-aaaa")
    run.start("x", epochs=3)
    for epoch in (1, 2, 3):
        run.batch(epoch, {"a": 1.0}, epoch)
        if epoch not in missing:
            run.epoch(epoch, epoch, {"a": 1.0})
    run.end()
    assert main(["show", "x/20260101", "--dir", str(tmp_path)]) == 0
    said = f"({len(missing)} of them not in the journal), " if missing else ""
    assert f"epochs 3 of 3{' ' if missing else ', '}{said}steps 3" in capsys.readouterr().out
    assert cells(row_of(run.folder))["epochs"] == "3/3"


def test_the_worst_alert_is_the_gravest_with_a_cause() -> None:
    alerts = [{"level": "error", "title": "traced", "cause": "not_finite_in"}, {"level": "error", "title": "nan"},
              {"level": "warning", "title": "explodes", "cause": "exploding_gradient"}]  # fmt: skip
    assert [(worst(each) or {}).get("title") for each in (alerts, alerts[1:], [])] == ["traced", "nan", None]
