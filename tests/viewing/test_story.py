"""Runs read for looking: exact where it matters, bounded everywhere."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from losslog import history
from losslog.journal import scan
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, encode
from losslog.viewing import parts
from losslog.viewing.column import Column
from losslog.viewing.columns import Template
from losslog.viewing.parts import story_of
from losslog.viewing.story import Story

Write = Callable[..., Path]


def read(folder: Path, limit: int = 1024) -> Story:
    story = Story(folder, limit)
    story.read()
    return story


def values(column: Column) -> list[float]:
    return [cell.high for _, cell in column.ordered()]


def plain(story: Story) -> Any:
    """Everything a story holds, for comparison."""
    batches = story.batches
    series = {"total": batches.total, **batches.losses, **batches.rates, **batches.weights, **story.metrics}
    columns = {
        name: [(x, cell.n, pytest.approx(cell.sum), cell.low, cell.high, cell.at) for x, cell in column.ordered()]
        for name, column in series.items()
    }
    counts = (batches.steps, batches.records, batches.images, batches.garbled, batches.last_step, batches.last_epoch)
    return columns, counts, story.epochs, story.evals, story.alerts, story.start, story.ended


def test_a_short_run_is_kept_exactly(tmp_path: Path, write_run: Write) -> None:
    folder = write_run(tmp_path / "r", epochs=3)
    story, series = read(folder), history.series(folder)
    assert set(story.batches.losses) == {f"loss_{name}" for name in
                                         ("classifier", "box_reg", "mask", "objectness", "rpn_box_reg")}  # fmt: skip
    for name, column in story.batches.losses.items():
        assert values(column) == list(series[f"batch/train_{name}"].values())
    assert values(story.batches.total) == list(series["batch/train_total"].values())
    assert (story.batches.steps, story.batches.images, len(story.epochs), len(story.evals)) == (150, 600, 3, 3)
    assert story.best()["mAP/bbox_AP"] == (pytest.approx(0.3), 3)


@pytest.mark.parametrize("spike", [0, 17, 4999, 9_998, 9_999])
def test_a_spike_of_one_step_survives(tmp_path: Path, book: Any, spike: int) -> None:
    made = book(tmp_path / "r")
    made.start()
    lines = [
        encode(Record(step + 1, 1.0, "on_batch_losses", {"step": step, "epoch": 1, "losses": {
            "a": 25.0 if step == spike else 0.5, "b": -9.0 if step == spike else 0.5}, "total": 1.0, "lr": 0.1}))
        for step in range(10_000)
    ]  # fmt: skip
    with made.path.open("ab") as file:
        file.writelines(lines)
    story = read(tmp_path / "r", limit=64)
    cells = [cell for _, cell in story.batches.losses["a"].ordered()]
    assert len(cells) <= 64
    assert max(cells, key=lambda cell: cell.high)[3:] == (25.0, spike)
    assert min(cell.low for _, cell in story.batches.losses["b"].ordered()) == -9.0
    assert sum(cell.n for cell in cells) == 10_000


def odd_run(folder: Path, book: Any) -> Path:
    """Lines of several forms, in and out of order, some of them no records."""
    noise = random.Random(3)
    made = book(folder)
    made.start(epochs=2)
    for step in range(400):
        losses: Any = {"a": noise.random(), "b": noise.random()}
        if step % 97 == 0:
            losses["c"] = float("nan") if step % 2 else float("-inf")
        if step % 89 == 0:
            losses = dict(reversed(losses.items()))  # the same keys in another order
        more: dict[str, Any] = {"lr": {"head": 0.1, "body": noise.random()}, "batch_size": 1 + step % 3}
        if step % 50 == 3:
            more["lr"] = None
        if step > 200:
            more["weights"] = {"a": 0.5}
        made.batch(step if step % 60 else step + 1000, losses, 1 + step // 200, **more)
        if step % 10 == 0:
            made.add("on_metrics", step=step, epoch=None, metrics={"grad_norm": noise.random()})
    with made.path.open("ab") as file:
        file.write(b'{"seq": 1, "time": 1.0, "hook": "on_batch_losses", "data": {"step": 1}}\n')
        file.write(b'{"seq": 2, "time": 1.0, "hook": "on_batch_losses", "data": {"losses": [], "step": "x"}}\n')
        file.write(b'{"seq": 3, "time": 1.0, "hook": "on_batch_losses"\n\xff\n{"torn": ')
    return folder


def test_lines_read_by_columns_are_those_decoded(
    tmp_path: Path, book: Any, write_run: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [odd_run(tmp_path / "odd", book), write_run(tmp_path / "even", epochs=3)]
    quick = [plain(read(folder)) for folder in folders]
    monkeypatch.setattr(Template, "read", lambda *_: None)
    assert [plain(read(folder)) for folder in folders] == quick


def test_a_template_takes_nothing_that_is_not_of_its_form() -> None:
    def line(**losses: float) -> bytes:
        data = {"step": 1, "epoch": 1, "losses": losses, "total": 3.0, "lr": None}
        return encode(Record(5, 2.5, "on_batch_losses", data)).rstrip()

    template = Template(scan.record_of(line(a=1.0, b=2e-7)))  # type: ignore[arg-type]
    found = template.read([line(a=1.0, b=2e-7), line(a=-3.5, b=4e22)])
    assert found is not None
    assert found["losses", "a"] == [b"1.0", b"-3.5"]
    assert found["losses", "b"] == [b"2e-07", b"4e+22"]
    for other in (
        line(b=1.0, a=2.0),
        line(a=1.0),
        line(a=1.0, b=math.nan),
        line(a=1.0, c=2.0),
        b"",
        b"{}",
        line(a=1.0, b=2.0)[:-1],
    ):
        assert template.read([line(a=1.0, b=2.0), other]) is None


def test_looking_again_and_again_gives_the_same(tmp_path: Path, book: Any) -> None:
    whole = (odd_run(tmp_path / "whole", book) / JOURNAL).read_bytes()
    story = Story(tmp_path / "grown")
    (tmp_path / "grown").mkdir()
    for end in [*range(0, len(whole), 4001), len(whole)]:
        (tmp_path / "grown" / JOURNAL).write_bytes(whole[:end])
        story.read()
    columns, counts, *rest = plain(story)
    expected, expected_counts, *expected_rest = plain(read(tmp_path / "whole"))
    assert (counts[:3], rest) == (expected_counts[:3], expected_rest)
    assert {name: sum(cell[1] for cell in cells) for name, cells in columns.items()} == {
        name: sum(cell[1] for cell in cells) for name, cells in expected.items()
    }


def test_what_a_resume_voids_is_gone(tmp_path: Path, book: Any) -> None:
    made = book(tmp_path / "r")
    made.start()
    for step in range(130):
        made.batch(step, {"a": 1.0}, 1 + step // 50)
    story = read(tmp_path / "r")
    made.start()
    made.add("on_resume", epoch=2, step=99)
    for step in range(100, 200):
        made.batch(step, {"a": 2.0}, 1 + step // 50)
    made.end()
    story.read()
    assert values(story.batches.losses["a"]) == [1.0] * 100 + [2.0] * 100
    assert plain(story) == plain(read(tmp_path / "r"))
    assert [each["step"] for each in story.resumes] == [99]


@pytest.mark.parametrize("broken", [False, True])
def test_several_processes_read_what_one_does(
    tmp_path: Path, book: Any, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    folder = odd_run(tmp_path / "r", book)
    alone = plain(read(folder))
    monkeypatch.setattr(parts, "WORTH", 10_000)
    monkeypatch.setattr("losslog.viewing.parts.os.cpu_count", lambda: 3)
    if broken:
        monkeypatch.setattr(parts.sys, "executable", "/nowhere/python")  # type: ignore[attr-defined]
    found = story_of(folder)
    assert plain(found) == alone
    assert found.offset == (folder / JOURNAL).read_bytes().rfind(b"\n") + 1


def test_names_without_end_stay_bounded(tmp_path: Path, book: Any) -> None:
    made = book(tmp_path / "r")
    made.start()
    for step in range(30):
        made.batch(step, {f"loss_{step}_{place}": 1.0 for place in range(30)})
    story = read(tmp_path / "r")
    assert len(story.batches.losses) == 400
    assert story.batches.losses.left_out


def test_values_that_are_not_finite_are_counted(tmp_path: Path, book: Any) -> None:
    made = book(tmp_path / "r")
    made.start()
    for step in range(100):
        made.batch(step, {"a": math.inf if step in (30, 31) else 1.0 if step < 90 else math.nan})
    column = read(tmp_path / "r").batches.losses["a"]
    assert (column.bad_count, column.bad[:3]) == (12, [30, 31, 90])
    assert sum(cell.n for cell in column.cells.values()) == 88
    assert math.isnan(column.last)
