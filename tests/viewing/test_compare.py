"""Two runs side by side: the right component, at the right place, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from losslog.cli import main
from losslog.viewing.compare import compare, first_difference, lines_of
from losslog.viewing.divergence import Gap, lasting
from losslog.viewing.parts import story_of

Write = Callable[..., Path]


def pair(one: Path, two: Path) -> dict[str, Any]:
    return compare(story_of(one), story_of(two))


def test_a_planted_change_is_named_and_nothing_else(tmp_path: Path, write_run: Write) -> None:
    one = write_run(tmp_path / "a", "a", epochs=8, config={"stall": False, "lr": 0.1})
    two = write_run(tmp_path / "b", "b", epochs=8, config={"stall": True, "lr": 0.1}, change=(140, "loss_mask", 1.5))
    found = pair(one, two)
    assert [each["component"] for each in found["apart"]] == ["loss_mask"]
    assert abs(found["apart"][0]["at"] - 140) <= found["apart"][0]["width"]
    assert found["apart"][0]["change"] == pytest.approx(0.5, abs=0.1)
    assert found["equal"] == 140
    said = dict(lines_of(found))
    assert said["config"] == "stall: false -> true"
    assert said["losses"] == "equal to the last bit before step 140"
    assert said["the other 4"] == "no lasting gap"
    assert said["learning rate"] == "the same"


def test_equal_runs_are_equal_to_the_last_bit(tmp_path: Path, write_run: Write) -> None:
    one, two = write_run(tmp_path / "a"), write_run(tmp_path / "b", epochs=3)
    found = pair(one, two)
    assert (found["whole"], found["common"], found["apart"]) == (True, 150, [])
    assert dict(lines_of(found))["losses"] == "equal to the last bit in all 150 steps that both have"


def test_a_last_bit_is_a_difference(tmp_path: Path, book: Any) -> None:
    for name, value in (("a", 0.1 + 0.2), ("b", 0.3)):
        made = book(tmp_path / name)
        made.start()
        for step in range(20):
            losses = {"x": 1.0, "y": value if step == 13 else 0.5}
            made.batch(step, dict(reversed(losses.items())) if name == "b" and step < 5 else losses)
    assert first_difference(tmp_path / "a" / "journal.jsonl", tmp_path / "b" / "journal.jsonl") == (13, 13)


def test_seeds_alone_are_no_divergence(tmp_path: Path, write_run: Write) -> None:
    runs = [write_run(tmp_path / str(seed), seed=seed, epochs=8) for seed in range(8)]
    found = [pair(runs[0], other) for other in runs[1:]]
    assert [each["apart"] for each in found] == [[]] * 7
    assert [each["common"] for each in found] == [0] * 7
    assert "not equal from the first step on" in dict(lines_of(found[0])).values()


def sized(folder: Path, book: Any, size: int, factor: float) -> Path:
    """A run over 6,400 images; a component hangs on the images seen, and is ``factor`` times as high from 3,200 on."""
    noise = random.Random(size)
    made = book(folder)
    made.start()
    for step in range(6400 // size):
        seen = step * size
        value = (0.2 + 2.0 ** (-seen / 1500)) * (1 + 0.2 * noise.random())
        made.batch(step, {"a": value * (factor if seen >= 3200 else 1.0), "b": value}, batch_size=size)
    return folder


def test_runs_of_other_batch_sizes_are_compared_by_images(tmp_path: Path, book: Any) -> None:
    one = sized(tmp_path / "four", book, 4, 1.0)
    assert pair(one, sized(tmp_path / "sixteen", book, 16, 1.0))["apart"] == []
    found = pair(one, sized(tmp_path / "eight", book, 8, 1.6))
    assert found["axis"] == "images"
    assert [each["component"] for each in found["apart"]] == ["a"]
    assert abs(found["apart"][0]["at"] - 3200) <= found["apart"][0]["width"]
    said = lines_of(found)
    assert ("data", "images a step: 4 -> 8") in said
    assert ("data", "steps: 1600 -> 800") in said


def test_rates_and_components_that_differ(tmp_path: Path, book: Any) -> None:
    for name in ("a", "b"):
        made = book(tmp_path / name)
        made.start(name)
        for step in range(100):
            lr = {"head": 0.1, "body": 0.02 if name == "b" and step >= 40 else 0.01}
            made.batch(step, {"x": 1.0, f"only_{name}": 1.0}, lr=lr)
    said = lines_of(pair(tmp_path / "a", tmp_path / "b"))
    assert ("learning rate", "body: 0.01 -> 0.02 from step 40") in said
    assert ("only_a", "only in a a") in said
    assert ("only_b", "only in b b") in said


def test_the_command(tmp_path: Path, write_run: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "x" / "20260101-000000-aaaa", "x\x1b[2J", config={"api_key": "sk-1"})
    write_run(tmp_path / "x" / "20260101-000001-bbbb", "x", config={"api_key": "sk-2"}, change=(60, "loss_mask", 2.0))
    runs = ["20260101-000000", "20260101-000001", "--dir", str(tmp_path)]
    assert main(["compare", *runs]) == 0
    out = capsys.readouterr().out
    assert "loss_mask      apart for good from step 60" in out
    assert "\x1b" not in out
    assert "sk-" not in out
    assert main(["compare", *runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["apart"][0]["component"] == "loss_mask"
    assert main(["compare", "20260101-000000", "20260101-000000", "--dir", str(tmp_path)]) == 2
    assert "at least 2 different runs" in capsys.readouterr().err


def test_runs_with_nothing_in_common(tmp_path: Path, book: Any) -> None:
    for name in ("empty", "also"):
        book(tmp_path / name).start(name)
    only = book(tmp_path / "only")
    only.start("only")
    for epoch in range(1, 30):
        only.epoch(epoch, None, {"a": 1.0 / epoch, "b": float("nan")})
    for one in ("empty", "only"):
        for two in ("also", "only"):
            assert lines_of(pair(tmp_path / one, tmp_path / two))


@pytest.mark.parametrize("values", [[0.0] * 100, [-1.0] * 100, [1.0], []])
def test_curves_that_no_ratio_can_be_taken_of(values: list[float]) -> None:
    curve = list(enumerate(values))
    assert lasting(curve, [(x, 2.0) for x, _ in curve], 0, len(curve)) is None


def test_a_gap_that_closes_again_does_not_last() -> None:
    noise = random.Random(5)
    one = [(float(x), 1.0 + 0.1 * noise.random()) for x in range(400)]
    two = [(float(x), (1.5 if 100 <= x < 250 else 1.0) + 0.1 * noise.random()) for x in range(400)]
    assert lasting(one, two, 0, 400) is None
    lasts = [(x, y * (1.5 if x >= 250 else 1.0)) for x, y in one]
    assert isinstance(lasting(one, lasts, 0, 400), Gap)
