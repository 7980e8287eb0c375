"""The hardest batches of an epoch: which, with which images, in memory that does not grow."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.history import records
from losslog.recording.hardest import COMPONENTS, IMAGES, MOST, Hardest


def test_the_highest_of_each_component_are_kept_and_nothing_else() -> None:
    random.seed(0)
    rows = [{"a": random.random(), "b": float(random.randrange(20))} for _ in range(3000)]
    asked: list[int] = []
    hardest = Hardest(lambda step: asked.append(step) or [step, f"{step}.jpg"])  # type: ignore[func-returns-value]
    for step, row in enumerate(rows):
        hardest.take(step, row)
    found = hardest.result() or {}
    for name in ("a", "b"):
        order = sorted(range(len(rows)), key=lambda step: (-rows[step][name], step))[:MOST]
        assert found[name] == [[rows[step][name], step, [step, f"{step}.jpg"]] for step in order]
    assert len(asked) < 200  # ids are read, which may wait for a device, only of candidates
    assert hardest.result() is None


def test_it_stays_small_whatever_comes() -> None:
    hardest = Hardest(lambda step: list(range(1000)))
    for step in range(50):
        hardest.take(step, {f"{step}/{n}": math.nan if n % 3 == 0 else 1.0 for n in range(20)})
        hardest.take(step, math.inf)
        hardest.take(step, 2.0)
    found = hardest.result() or {}
    assert len(found) == COMPONENTS
    assert all(math.isfinite(each[0]) and len(each[2]) == IMAGES for kept in found.values() for each in kept)


def targets(*ids: Any) -> list[dict[str, Any]]:
    return [{"image_id": each} for each in ids]


@pytest.fixture
def run(make_run: Callable[..., losslog.Run]) -> losslog.Run:
    run = make_run()
    for epoch in (1, 2):
        for step in range(4):
            losses = {"loss_mask": float(step == epoch), "loss_box": 1.0 - step / 10}
            run.log_batch(losses, targets=targets(10 * epoch + step, f"{step}.jpg"))
            run.flush()
        run.end_epoch()
    seen = {"id": 27, "path": "27.png", "width": 8, "height": 8, "mistakes": {"wrong_class": 3}}
    right = {"id": 28, "path": "28.png", "width": 8, "height": 8, "mistakes": {}}
    run.log_images("val", [seen, right], name="hardest", epoch=2, folder="data")
    run.close()
    return run


def test_the_end_of_an_epoch_has_them(run: losslog.Run) -> None:
    ends = [each.data["hardest"] for each in records(run.dir) if each.hook == "on_epoch_end"]
    assert [each["loss_mask"][0] for each in ends] == [[1.0, 1, [11, "1.jpg"]], [1.0, 6, [22, "2.jpg"]]]
    assert [step for _, step, _ in ends[1]["loss_box"]] == [4, 5, 6, 7]


def test_without_targets_there_is_nothing(make_run: Callable[..., losslog.Run]) -> None:
    run = make_run()
    run.log_batch({"a": 1.0})
    run.log_batch({"a": 1.0}, targets=[{"boxes": []}])
    run.end_epoch()
    run.close()
    (end,) = [each.data for each in records(run.dir) if each.hook == "on_epoch_end"]
    assert "hardest" not in end


def hex_head(value: int) -> str:
    return hex(value)[:20]


@pytest.mark.parametrize(
    "large", [2**63 - 1, 2**63, 2**64 - 1, 10**30, -(2**63), -(2**63) - 1, 1 << 20000], ids=hex_head
)
def test_ids_of_any_size_cost_no_record(large: int, make_run: Callable[..., losslog.Run]) -> None:
    run = make_run()
    run.log_images("val", [{"id": large, "width": 8, "height": 8}])
    run.log_batch({"a": 1.0}, targets=targets(large))
    run.flush()
    run.end_epoch()
    run.close()
    found = {each.hook: each.data for each in records(run.dir)}
    (identity,) = found["on_epoch_end"]["hardest"]["a"][0][2]
    fits = -(2**63) <= large < 2**63
    assert identity == (large if fits else str(large) if large < 10**100 else hex(large))
    assert str(identity)[:90] == str(found["on_images"]["images"][0]["id"])[:90]
    assert found["on_epoch_end"]["losses"] == {"a": 1.0}


def test_show_hard(run: losslog.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run.dir), "--hard"]) == 0
    lines = [" ".join(each.split()) for each in capsys.readouterr().out.splitlines()]
    assert lines[0] == "highest losses of epoch 2: loss, step, images of the batch"
    assert lines[1] == "loss_mask 1 6 22, 2.jpg"
    assert lines[-2:] == [
        "most mistakes in the evaluation of epoch 2: image, mistakes, file",
        "27 3 wrong class 27.png",
    ]
    assert main(["show", str(run.dir), "--hard", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["id"] == 27


def test_show_hard_says_what_is_lacking(
    make_run: Callable[..., losslog.Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    run.log_batch(1.0)
    run.close()
    assert main(["show", str(run.dir), "--hard"]) == 0
    assert "pass targets= to run.log_batch" in capsys.readouterr().out
