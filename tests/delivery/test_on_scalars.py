"""One derived hook instead of four: the same points near, far, in step and in a replay."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

import losslog
from losslog import BackendUnavailable, StopTraining, hookimpl
from losslog.cli import main
from losslog.delivery.caller import Caller

Made = Callable[..., losslog.Run]
Point = tuple[int, str, int, dict[str, float]]

FAR = '''
import json
from losslog import hookimpl

class Plugin:
    """Appends its points to ``points.jsonl`` in the run folder."""

    @hookimpl
    def on_scalars(self, series, axis, x, seq, run):
        with open(run.dir / "points.jsonl", "a") as file:
            file.write(json.dumps([seq, axis, x, series]) + "\\n")
'''


class Keeps:
    """Keeps its points."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    @hookimpl
    def on_scalars(self, series: dict[str, float], axis: str, x: int, seq: int) -> None:
        self.points.append((seq, axis, x, series))


class Both(Keeps):
    """Wants the epoch's end as such, too."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    @hookimpl
    def on_scalars(self, series: dict[str, float], axis: str, x: int, seq: int) -> None:
        self.order.append(axis)

    @hookimpl
    def on_epoch_end(self, epoch: int) -> None:
        self.order.append(f"end of {epoch}")


def train(run: losslog.Run) -> None:
    """Every kind of number: a dict and a scalar, nested and flat, finite and not, with an x and without."""
    run.log_metrics({"before": 1.0})
    run.log_batch({"a": 1.0, "text": math.nan}, lr={"body": 0.1, "head": 1.0})
    run.log_batch({"a": math.inf, "text": -math.inf})
    run.log_eval({"bbox": {"AP": 0.5, "classes": {"name": math.nan}}, "accuracy": 0.25})
    run.log_metrics({"speed": math.nan})
    run.log_metrics({"size": 2.0}, epoch=1)
    run.end_epoch(val_loss={"a": math.nan, "key": 1.0})
    run.log_batch(math.nan)
    run.end_epoch(val_loss=math.inf)
    run.log_checkpoint("a.pth")


def plain(points: list[Any]) -> list[str]:
    """Axis, x and series as text, since a NaN is not equal to itself."""
    return [repr(tuple(each[-3:])) for each in points]


NAN = math.nan
POINTS = [
    ("step", 0, {"before": 1.0}),
    ("step", 0, {"batch/train_a": 1.0, "batch/train_text": NAN, "batch/train_total": NAN, "batch/lr": 0.1,
                 "batch/lr_group/body": 0.1, "batch/lr_group/head": 1.0}),
    ("step", 1, {"batch/train_a": math.inf, "batch/train_text": -math.inf, "batch/train_total": NAN}),
    ("epoch", 1, {"mAP/bbox_AP": 0.5, "mAP_class/bbox_name": NAN, "eval/accuracy": 0.25}),
    ("step", 1, {"speed": NAN}),
    ("epoch", 1, {"size": 2.0}),
    ("epoch", 1, {"loss/train_a": math.inf, "loss/train_text": NAN, "loss/train_total": NAN, "loss/val_a": NAN,
                  "loss/val_key": 1.0, "loss/val": NAN, "lr": 0.1, "lr_group/body": 0.1, "lr_group/head": 1.0}),
    ("step", 2, {"batch/train": NAN}),
    ("epoch", 2, {"loss/train": NAN, "loss/val": math.inf, "lr": 0.1, "lr_group/body": 0.1,
                  "lr_group/head": 1.0}),
]  # fmt: skip


def test_a_near_plugin_gets_every_number(make_run: Made) -> None:
    plugin = Keeps()
    run = make_run(plugins=[plugin])
    train(run)
    run.close()
    assert plain(plugin.points) == plain(POINTS)
    lane = run.stats["lanes"]["Keeps"]
    assert (lane["delivered"], lane["errors"], lane["behind"]) == (len(POINTS), 0, 0)


def test_a_plugin_called_in_step_gets_every_number_at_once(make_run: Made) -> None:
    run, plugin = make_run(), Keeps()
    run.register(plugin, inline=True)
    train(run)
    found = [each for each in plugin.points if not any("loss/val" in tag for tag in each[3])]
    expected = [each for each in POINTS if not any("loss/val" in tag for tag in each[2])]
    assert plain(found) == plain(expected)
    # the means of an epoch are made on the drain thread, so here its end has no more than what the loop passed
    ends = [series for *_, series in plugin.points if "loss/val" in series]
    assert repr(ends) == repr([{"loss/val_a": NAN, "loss/val_key": 1.0, "loss/val": NAN}, {"loss/val": math.inf}])
    run.close()


def test_it_may_stop_the_training_in_step(make_run: Made) -> None:
    class Stops:
        @hookimpl
        def on_scalars(self, series: dict[str, float]) -> None:
            if not all(map(math.isfinite, series.values())):
                raise StopTraining("not finite")

    run = make_run()
    run.register(Stops(), inline=True)
    run.log_batch(1.0)
    with pytest.raises(StopTraining, match="not finite"):
        run.log_batch(math.nan)


def test_far_and_replayed_it_is_the_same(make_run: Made, package: Callable[..., str]) -> None:
    package(FAR, "far")
    run = make_run(plugins=["far"], follower=True)
    train(run)
    run.close()
    path = run.dir / "points.jsonl"
    live = path.read_text().splitlines()
    assert plain([json.loads(line) for line in live]) == plain(POINTS)
    path.unlink()
    assert main(["replay", str(run.dir), "--to", "far", "--from-start"]) == 0
    assert path.read_text().splitlines() == live


def test_history_has_the_same_points(make_run: Made) -> None:
    from losslog.history import series

    run = make_run()
    train(run)
    run.close()
    expected: dict[str, dict[int, float]] = {}
    for _, x, values in POINTS:
        for tag, value in values.items():
            expected.setdefault(tag, {})[x] = value
    assert repr(sorted(series(run.dir).items())) == repr(sorted(expected.items()))


def test_the_function_of_a_script(make_run: Made) -> None:
    run = make_run()
    found = []

    @run.on("on_scalars")
    def look(series: dict[str, float], x: int) -> None:
        found.append((x, series))

    run.log_batch(0.5)
    run.close()
    assert found == [(0, {"batch/train": 0.5})]


def test_a_window_of_steps_is_one_call(make_run: Made) -> None:
    plugin = Keeps()
    run = make_run(plugins=[plugin], options={"Keeps": {"batch_every": 2}})
    for value in (1.0, 2.0, 3.0, 5.0):
        run.log_batch(value)
    run.close()
    assert [(x, series) for _, _, x, series in plugin.points] == [(1, {"batch/train": 1.5}), (3, {"batch/train": 4.0})]


def test_a_plugin_may_have_hooks_of_its_own_beside_it(make_run: Made) -> None:
    plugin = Both()
    run = make_run(plugins=[plugin])
    run.log_batch(1.0)
    run.end_epoch()
    run.close()
    assert plugin.order == ["step", "epoch", "end of 1"]
    assert run.stats["lanes"]["Both"]["delivered"] == 2


def test_a_record_without_a_number_is_no_call_of_it() -> None:
    plugin = Both()
    caller = Caller("both", plugin)
    caller.call("on_epoch_end", {"epoch": 3}, None, 0, 0.0)
    caller.call("on_metrics", {"metrics": {}}, None, 1, 0.0)
    caller.call("on_checkpoint", {"path": "a.pth"}, None, 2, 0.0)
    assert plugin.order == ["end of 3"]


def test_where_it_raises_the_record_is_not_delivered_by_half(make_run: Made, until: Any) -> None:
    class Away(Both):
        away = True

        @hookimpl
        def on_scalars(self, axis: str) -> None:
            if axis == "epoch" and self.away:
                self.away = False
                raise BackendUnavailable("made up")
            self.order.append(axis)

    plugin = Away()
    run = make_run(plugins=[plugin])
    run.log_batch(1.0)
    run.end_epoch()
    until(lambda: "end of 1" in plugin.order)
    run.close()
    assert plugin.order[-2:] == ["epoch", "end of 1"]
    assert plugin.order.count("end of 1") == 1


def test_two_plugins_do_not_share_what_they_get(make_run: Made) -> None:
    class Clears:
        @hookimpl
        def on_scalars(self, series: dict[str, float]) -> None:
            series.clear()

    plugin = Keeps()
    run = make_run(plugins=[Clears(), plugin])
    run.log_metrics({"a": 1.0}, step=3)
    run.close()
    assert [series for *_, series in plugin.points] == [{"a": 1.0}]


def test_a_trace_names_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOSSLOG_TRACE", "1")
    Caller("k", Keeps()).call("on_metrics", {"step": 4, "metrics": {"a": 1.0}}, None, 3, 0.0)
    said = capsys.readouterr().err
    assert said == "losslog trace: k.on_scalars seq=3 {'series': {'a': 1.0}, 'axis': 'step', 'x': 4}\n"
