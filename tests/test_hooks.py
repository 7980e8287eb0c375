"""Every hook, from a real run to a plugin that asks for all of its arguments."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.hookspecs import ARGUMENTS, HOOKS

Call = dict[str, Any]
CONTEXT = ("run", "seq", "time")


def make_everything() -> Any:
    """A near plugin whose every hook names every argument there is, and keeps what it gets."""

    class Everything:
        near = True

        def __init__(self) -> None:
            self.calls: list[tuple[str, Call]] = []

        def of(self, hook: str) -> list[Call]:
            """What a hook got, without run, seq and time."""
            return [
                {key: value for key, value in call.items() if key not in CONTEXT}
                for name, call in self.calls
                if name == hook
            ]

    for hook in HOOKS:
        names = ARGUMENTS[hook]
        kept = ", ".join(f"{name!r}: {name}" for name in names)
        space: dict[str, Any] = {}
        exec(f"def {hook}(self, {', '.join(names)}): self.calls.append(({hook!r}, {{{kept}}}))", space)
        setattr(Everything, hook, losslog.hookimpl(space[hook]))
    return Everything()


@pytest.fixture
def told(make_run: Callable[..., losslog.Run]) -> Callable[..., tuple[losslog.Run, Any]]:
    """Makes a run with the recording plugin."""

    def make(**arguments: Any) -> tuple[losslog.Run, Any]:
        plugin = make_everything()
        return make_run(plugins=[plugin], **arguments), plugin

    return make


def test_on_run_start_tells_the_plan(told: Any) -> None:
    run, plugin = told(config={"lr": 0.1, "api_token": "hush"}, epochs=2, steps_per_epoch=3)
    run.close()
    assert plugin.calls[0][0] == "on_run_start"
    (start,) = plugin.of("on_run_start")
    assert start.pop("origin")["versions"]["losslog"] == losslog.__version__
    assert [start] == [
        {
            "name": "test",
            "config": {"lr": 0.1, "api_token": "[redacted]"},
            "epochs": 2,
            "steps_per_epoch": 3,
            "options": {},
            "resumed": False,
        }
    ]


def test_on_scalars_comes_before_each_hook_that_has_numbers(told: Any) -> None:
    run, plugin = told()
    run.log_metrics({"warm": 1.0})
    run.log_batch({"a": 1.0, "b": 0.5}, lr=0.1)
    run.log_eval({"bbox": {"AP": 0.5}})
    run.log_metrics({"speed": 3}, step=7)
    run.log_metrics({"size": 2.5}, epoch=2)
    run.end_epoch()
    run.log_checkpoint("a.pth")
    run.close()
    assert plugin.of("on_scalars") == [
        {"axis": "step", "x": 0, "series": {"warm": 1.0}},
        {"axis": "step", "x": 0, "series": {"batch/train_a": 1.0, "batch/train_b": 0.5, "batch/train_total": 1.5,
                                            "batch/lr": 0.1}},
        {"axis": "epoch", "x": 1, "series": {"mAP/bbox_AP": 0.5}},
        {"axis": "step", "x": 7, "series": {"speed": 3.0}},
        {"axis": "epoch", "x": 2, "series": {"size": 2.5}},
        {"axis": "epoch", "x": 1, "series": {"loss/train_a": 1.0, "loss/train_b": 0.5, "loss/train_total": 1.5,
                                             "lr": 0.1}},
    ]  # fmt: skip
    names = [name for name, _ in plugin.calls if name != "on_flush"]
    assert names[1:5] == ["on_scalars", "on_metrics", "on_scalars", "on_batch_losses"]
    scalars = [call for name, call in plugin.calls if name == "on_scalars"]
    own = [call for name, call in plugin.calls if name in ("on_batch_losses", "on_eval", "on_metrics", "on_epoch_end")]
    assert [(each["seq"], each["time"]) for each in scalars] == [(each["seq"], each["time"]) for each in own]


def test_on_batch_losses_gives_what_the_loop_gave(told: Any) -> None:
    run, plugin = told()
    run.log_batch({"a": 1.0, "b": 0.5}, lr={"body": 0.1, "head": 1.0}, batch_size=4)
    run.log_batch(0.25)
    run.close()
    nothing = {"lr": None, "batch_size": None, "ranks": None, "n": None, "spread": None, "weights": None}
    assert plugin.of("on_batch_losses") == [
        {**nothing, "step": 0, "epoch": 1, "losses": {"a": 1.0, "b": 0.5}, "total": 1.5,
         "lr": {"body": 0.1, "head": 1.0}, "batch_size": 4},
        {**nothing, "step": 1, "epoch": 1, "losses": 0.25, "total": 0.25},
    ]  # fmt: skip


def test_on_eval_gives_nested_metrics(told: Any) -> None:
    run, plugin = told()
    metrics = {"bbox": {"AP": 0.5, "classes": {"cat": 0.25}}, "segm": {"AP": 0.4}}
    run.log_batch(1.0)
    run.log_eval(metrics, split="test")
    run.close()
    assert plugin.of("on_eval") == [{"epoch": 1, "step": 0, "split": "test", "metrics": metrics}]


def test_on_metrics_gives_either_axis(told: Any) -> None:
    run, plugin = told()
    run.log_metrics({"speed": 3}, step=7)
    run.log_metrics({"size": 2.5}, epoch=2, detail={"by": {"part": 1}})
    run.close()
    assert plugin.of("on_metrics") == [
        {"step": 7, "epoch": None, "metrics": {"speed": 3.0}, "detail": None},
        {"step": None, "epoch": 2, "metrics": {"size": 2.5}, "detail": {"by": {"part": 1}}},
    ]


def test_what_metrics_sum_up_is_plain_data(told: Any) -> None:
    run, _ = told()
    with pytest.raises(TypeError, match="detail"):
        run.log_metrics({"speed": 3}, detail={"by": object()})


def test_on_epoch_end_gives_the_means(told: Any) -> None:
    run, plugin = told(epochs=5)
    run.log_batch({"a": 1.0, "b": 0.5}, lr=0.1)
    run.log_batch({"a": 2.0, "b": 0.5}, lr=0.2)
    run.end_epoch(val_loss={"a": 3.0})
    run.close()
    (got,) = plugin.of("on_epoch_end")
    assert 0 <= got.pop("duration") < 60
    assert got == {
        "epoch": 1, "epochs": 5, "step": 1, "losses": {"a": 1.5, "b": 0.5}, "total": 2.0, "val_loss": {"a": 3.0},
        "lr": 0.2, "dropped": None, "weights": None, "hardest": None,
    }  # fmt: skip


def test_on_images_gives_what_is_in_them_and_files_that_may_be_read(told: Any, tmp_path: Path) -> None:
    run, plugin = told()
    (tmp_path / "12.jpg").write_bytes(b"x")
    thing = {"box": [1.0, 1.0, 4.0, 4.0], "label": "cat"}
    image = {"id": 12, "path": "12.jpg", "width": 8, "height": 6, "truth": [thing], "predictions": []}
    run.log_images("val", [image], name="fixed", epoch=3, step=29, folder=tmp_path)
    run.close()
    seen = {**image, "path": os.path.realpath(tmp_path / "12.jpg"), "thumbnail": None}
    assert plugin.of("on_images") == [
        {"epoch": 3, "step": 29, "split": "val", "name": "fixed", "images": [seen], "folder": str(tmp_path)}
    ]


def test_on_checkpoint_gives_the_path(told: Any) -> None:
    run, plugin = told()
    run.log_checkpoint("checkpoints/epoch_003.pth", epoch=3, step=29)
    run.close()
    assert plugin.of("on_checkpoint") == [{"epoch": 3, "step": 29, "path": "checkpoints/epoch_003.pth"}]


def test_on_alert_gives_it_once_per_key(told: Any) -> None:
    run, plugin = told()
    run.log_batch(1.0)
    for _ in range(2):
        run.alert("odd", "three in a row", "error", key="odd", component="loss_mask")
    run.close()
    assert plugin.of("on_alert") == [
        {"level": "error", "title": "odd", "text": "three in a row", "source": "user", "component": "loss_mask",
         "step": 0, "epoch": 1, "key": "odd", "cause": None, "evidence": None}
    ]  # fmt: skip


def test_on_alert_gives_cause_and_evidence_as_data(told: Any) -> None:
    class Doubter:
        near = True

        @losslog.hookimpl
        def on_batch_losses(self, run: Any) -> None:
            run.alert("odd", cause="lr_cut", evidence={"cut_step": 3, "range": (0.1, 0.2), "lr": None})

    run, plugin = told()
    run.register(Doubter())
    run.log_batch(1.0)
    run.close()
    (alert,) = plugin.of("on_alert")
    assert (alert["cause"], alert["evidence"]) == ("lr_cut", {"cut_step": 3, "range": [0.1, 0.2], "lr": None})


def test_on_resume_says_what_still_counts(told: Any) -> None:
    first, _ = told()
    first.log_batch(1.0)
    first.end_epoch()
    first.close()
    run, plugin = told(name=None, resume=first.dir, resume_epoch=1, resume_step=0)
    run.close()
    assert plugin.of("on_resume") == [{"epoch": 1, "step": 0}]
    # a new object is first told how the run began, then that it was resumed
    assert [call["resumed"] for call in plugin.of("on_run_start")] == [False, True]


def test_on_run_end_comes_last_with_the_error(told: Any) -> None:
    run, plugin = told()
    with pytest.raises(ZeroDivisionError), run:
        1 / 0  # noqa: B018
    (end,) = plugin.of("on_run_end")
    cost = end.pop("cost")
    assert end == {"status": "failed", "error": "ZeroDivisionError: division by zero"}
    assert cost["us_per_step"] >= 0
    assert len(cost["cpu_seconds"]) == 2  # the plugin's, and
    assert cost["cpu_seconds"]["journal"] >= 0
    assert [name for name, _ in plugin.calls if name != "on_flush"][-1] == "on_run_end"


def test_on_flush_comes_after_the_records(told: Any) -> None:
    run, plugin = told()
    run.log_batch(1.0)
    run.close()
    assert plugin.calls[-1][0] == "on_flush"
    assert list(plugin.calls[-1][1]) == ["run"]


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook != "on_flush"])
def test_every_hook_offers_run_seq_and_time(hook: str) -> None:
    assert ARGUMENTS[hook][-3:] == CONTEXT


def test_run_seq_and_time_are_the_records(told: Any, records: Any) -> None:
    began = time.time()
    run, plugin = told(config={"lr": 0.1})
    run.log_batch(1.0)
    run.end_epoch()
    run.close()
    got = [call for name, call in plugin.calls if name not in ("on_flush", "on_scalars")]
    assert [(call["seq"], call["time"]) for call in got] == [(each.seq, each.time) for each in records(run.dir)]
    assert [call["seq"] for call in got] == [0, 1, 2, 3]
    assert all(began <= call["time"] <= time.time() for call in got)
    assert {(call["run"].id, call["run"].name, call["run"].dir) for call in got} == {(run.id, "test", run.dir)}
