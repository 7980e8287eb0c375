"""Two runs side by side: the right component, at the right place, and nothing else."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from losslog.cli import main
from losslog.viewing.compare import compare
from losslog.viewing.divergence import Gap, lasting
from losslog.viewing.equality import differences
from losslog.viewing.parts import story_of
from losslog.viewing.story import Story
from losslog.viewing.telling import lines_of, parting_of

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
    assert said["losses"] == "only loss_mask differs, from step 140 on"
    assert said["the other 4"] == "equal to the last bit"
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
    found = differences(tmp_path / "a" / "journal.jsonl", tmp_path / "b" / "journal.jsonl", ["x", "y"])
    assert found == ({"y": 13}, 13, 0)


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


# ------------------------------------------------------------------ values that are not finite


def made(folder: Path, book: Any, values: Callable[[int], Any], steps: int = 600, **more: Any) -> Path:
    run = book(folder)
    run.start(folder.name)
    for step in range(steps):
        run.batch(step, values(step), **more)
    return folder


def noisy(step: int, seed: int = 0) -> float:
    return 0.5 + 0.1 * random.Random(step * 7 + seed).random()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("steps", [600, 3000])
def test_a_loss_that_is_lost_is_said_to_be(tmp_path: Path, book: Any, wrong: float, steps: int) -> None:
    one = made(tmp_path / "well", book, lambda step: {"a": noisy(step), "b": noisy(step)}, steps)
    two = made(tmp_path / "broken", book, lambda step: {"a": wrong if step >= 300 else noisy(step), "b": noisy(step)},
               steps)  # fmt: skip
    said = lines_of(pair(one, two))
    assert ("a", f"not finite in broken from step 300 ({steps - 300} of {steps} values)") in said
    assert ("b", "equal to the last bit") in said
    assert "no lasting gap" not in dict(said).values()
    assert dict(said)["losses"] == "only a differs, from step 300 on"
    backwards = dict(lines_of(pair(two, one)))
    assert backwards["a"] == f"not finite in broken from step 300 ({steps - 300} of {steps} values)"


def test_from_the_first_step_on_and_for_a_while(tmp_path: Path, book: Any) -> None:
    one = made(tmp_path / "well", book, lambda step: {"a": noisy(step)})
    two = made(tmp_path / "never", book, lambda step: {"a": math.nan})
    assert dict(lines_of(pair(one, two)))["a"] == "not finite in never from step 0 (600 of 600 values)"
    some = made(tmp_path / "some", book, lambda step: {"a": math.nan if 100 <= step < 120 else noisy(step)})
    assert dict(lines_of(pair(one, some)))["a"] == "20 of 600 values not finite in some, the first at step 100"
    both = lines_of(pair(two, made(tmp_path / "too", book, lambda step: {"a": math.nan})))
    assert [text for what, text in both if what == "a"] == [
        "not finite in never from step 0 (600 of 600 values)", "not finite in too from step 0 (600 of 600 values)"
    ]  # fmt: skip


def test_a_scalar_and_a_total_alone(tmp_path: Path, book: Any) -> None:
    one = made(tmp_path / "well", book, noisy)
    two = made(tmp_path / "broken", book, lambda step: math.nan if step > 9 else noisy(step))
    assert dict(lines_of(pair(one, two)))["loss"] == "not finite in broken from step 10 (590 of 600 values)"
    three = made(tmp_path / "sum", book, lambda step: {"a": noisy(step)}, total=math.inf)
    assert dict(lines_of(pair(three, three)))["total"] == "not finite in sum sum from step 0 (600 of 600 values)"


def test_epochs_alone_that_are_not_finite(tmp_path: Path, book: Any) -> None:
    for name in ("well", "broken"):
        run = book(tmp_path / name)
        run.start(name)
        for epoch in range(1, 9):
            run.epoch(epoch, None, {"a": math.nan if name == "broken" and epoch > 5 else 0.5, "b": 0.1})
    said = dict(lines_of(pair(tmp_path / "well", tmp_path / "broken")))
    assert said["losses"] == "only a differs, from epoch 6 on"
    assert said["a"] == "not finite in broken from epoch 6 (3 of 8 values)"


def test_many_readers_agree_on_when_it_began(tmp_path: Path, book: Any) -> None:
    made(tmp_path / "r", book, lambda step: {"a": math.nan if step >= 70 or step == 5 else 0.5}, 200)
    whole, first, second = (Story(tmp_path / "r") for _ in range(3))
    whole.read()
    lines = whole.path.read_bytes().splitlines(keepends=True)
    for cut in (1, 5, 60, 72, 150, 201):
        first, second = Story(tmp_path / "r"), Story(tmp_path / "r")
        place = len(b"".join(lines[:cut]))
        first.take(0, place)
        second.take(place, None)
        first.append(second)
        assert (first.batches.losses["a"].bad_since, first.batches.losses["a"].bad_count) == (70, 131)
    assert whole.batches.losses["a"].bad_since == 70


# ------------------------------------------------------------------ only what is true


def test_components_are_equal_one_by_one(tmp_path: Path, book: Any) -> None:
    def losses(step: int) -> dict[str, float]:
        return {name: noisy(step, place) for place, name in enumerate("abc")}

    one = made(tmp_path / "one", book, losses)
    more = made(tmp_path / "more", book, lambda step: losses(step) | {"loss_d": 0.3})
    said = lines_of(pair(one, more))
    assert ("losses", "those of both equal to the last bit in all 600 steps that both have") in said
    assert ("loss_d", "only in more more") in said
    assert "no lasting gap" not in dict(said).values()
    tiny = made(tmp_path / "tiny", book, lambda step: losses(step) | {"c": noisy(step, 2) + 1e-15})
    found = pair(one, tiny)
    said = lines_of(found)
    assert ("losses", "only c differs, from the first step on") in said
    assert ("c", "no lasting gap") in said
    assert ("a, b", "equal to the last bit") in said


def test_what_was_not_logged_is_not_compared(tmp_path: Path, book: Any) -> None:
    one = made(tmp_path / "one", book, lambda step: {"a": noisy(step)}, lr=None)
    two = made(tmp_path / "two", book, lambda step: {"a": noisy(step)}, lr=None, batch_size=8)
    said = lines_of(pair(one, two))
    assert ("learning rate", "not logged") in said
    assert ("data", "images a step: not logged -> 8") in said
    three = made(tmp_path / "three", book, lambda step: {"a": noisy(step)}, lr=0.1)
    assert ("learning rate", "lr: logged only in three") in lines_of(pair(two, three))
    book(tmp_path / "none").start("none")
    assert ("losses", "none that both have by epoch") in lines_of(pair(one, tmp_path / "none"))
    few = made(tmp_path / "few", book, lambda step: {"a": noisy(step, 1)}, 30)
    assert dict(lines_of(pair(one, few)))["a"] == "too few values to tell, it takes 50"
    below = [made(tmp_path / f"m{seed}", book, lambda step, seed=seed: -noisy(step, seed)) for seed in (1, 2)]
    assert dict(lines_of(pair(*below)))["loss"] == "not told of values that are not above zero"


@pytest.mark.parametrize("steps", [(600, 600), (600, 3000), (5000, 1500)])
def test_a_cut_is_found_whatever_the_lengths(tmp_path: Path, book: Any, steps: tuple[int, int]) -> None:
    folders = []
    for name, count in zip(("one", "two"), steps, strict=True):
        run = book(tmp_path / name)
        run.start(name)
        for step in range(count):
            run.batch(step, {"a": 0.5}, lr=0.01 if name == "one" or step < 400 else 0.001)
        folders.append(tmp_path / name)
    found = pair(*folders)
    assert [(each["group"], each["values"]) for each in found["rates"]] == [("lr", [0.01, 0.001])]
    assert abs(found["rates"][0]["at"] - 400) <= 8
    assert pair(folders[0], folders[0])["rates"] == []
    assert any(what == "learning rate" and "0.01 -> 0.001" in text for what, text in parting_of(found))


def test_a_schedule_is_the_same_as_itself(tmp_path: Path, book: Any) -> None:
    folders = []
    for name, count in (("one", 900), ("two", 5000)):
        run = book(tmp_path / name)
        run.start(name)
        for step in range(count):
            run.batch(step, {"a": 0.5}, lr=0.01 * 0.999**step)
        folders.append(tmp_path / name)
    assert pair(*folders)["rates"] == []


def test_settings(tmp_path: Path, book: Any) -> None:
    configs: tuple[dict[str, Any], ...] = (
        {"same": "<object object at 0x7fb0aa>", "new": "x", "n": 1, "gone": None, "empty": {}, "e": "", "last": 1},
        {"same": "<object object at 0x7fb0bb>", "none": None, "n": "1", "gone": 2, "empty": {"x": 1}, "e": " "},
    )
    many = {f"k{number:03}": number for number in range(300)}
    for name, config in zip(("one", "two"), configs, strict=True):
        book(tmp_path / name).start(name, many | config, epochs=3 if name == "two" else None)
    said = [text for what, text in lines_of(pair(tmp_path / "one", tmp_path / "two")) if what == "config"]
    assert sorted(said) == [
        'e: "" -> " "', "empty.x: (not set) -> 1", "empty: {} -> (not set)", "epochs: (not set) -> 3",
        "gone: null -> 2", "last: 1 -> (not set)", 'n: 1 -> "1"', "new: x -> (not set)", "none: (not set) -> null",
    ]  # fmt: skip


def test_names_of_any_kind_are_told_apart(tmp_path: Path, book: Any) -> None:
    names = ['x", "y', "}, ", "ü", 'q": 1', "a\\b"]
    one = made(tmp_path / "one", book, lambda step: dict.fromkeys(names, noisy(step)), 60)
    for wrong in names:
        two = made(tmp_path / "two", book, lambda step, wrong=wrong: dict.fromkeys(names, noisy(step))
                   | {wrong: noisy(step) + (step == 40)}, 60)  # fmt: skip
        paths = [each / "journal.jsonl" for each in (one, two)]
        assert differences(*paths, names) == ({wrong: 40}, 40, 0)
        paths[1].unlink()


def test_steps_are_matched_by_their_number(tmp_path: Path, book: Any) -> None:
    one = made(tmp_path / "one", book, lambda step: {"a": noisy(step)}, 100)
    run = book(tmp_path / "two")
    run.start("two")
    for step in range(5, 100, 5):
        run.batch(step, {"a": noisy(step)})
    assert dict(lines_of(pair(one, tmp_path / "two")))["losses"] == (
        "equal to the last bit in all 19 steps that both have"
    )


@pytest.mark.parametrize(
    "data",
    [b'5, "epoch": 1, "losses": {"\xa0": 1.0}}', b'5, "epoch": 1, "losses": {"\\ud8": 1.0}}',
     b'5, "epoch": 1, "losses": \xff}', b"9" * 5000 + b', "epoch": 1, "losses": {"x": 1}}'],
    ids=range(4),
)  # fmt: skip
def test_a_line_that_is_no_record_is_not_compared(tmp_path: Path, book: Any, data: bytes) -> None:
    line = b'{"seq": 99, "time": 1.7e9, "hook": "on_batch_losses", "data": {"step": %b}' % data
    for name in ("a", "b"):
        made = book(tmp_path / name)
        made.start()
        for step in range(10):
            made.batch(step, {"x": 1.0 if step < 8 or name == "a" else 2.0})
    journal = tmp_path / "b" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:6], line + b"\n", *lines[6:]]))
    found = differences(tmp_path / "a" / "journal.jsonl", journal, ["x"])
    assert found == ({"x": 8}, 8, 0)


def test_a_whole_number_is_the_same_float(tmp_path: Path, book: Any) -> None:
    for name, value in (("a", 1), ("b", 1.0)):
        made = book(tmp_path / name)
        made.start()
        made.batch(0, {"x": value})
    assert differences(tmp_path / "a" / "journal.jsonl", tmp_path / "b" / "journal.jsonl", ["x"]) == ({}, 1, 0)
