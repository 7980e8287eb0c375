from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losslog import StopTraining, hookimpl
from losslog.control import RunHandle
from losslog.delivery.caller import Caller
from losslog.delivery.inline import Inline


class Inner:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.got = error, []

    @hookimpl
    def on_eval(self, metrics: Any, seq: int) -> None:
        self.got.append((dict(metrics), seq))
        metrics.clear()
        if self.error is not None:
            raise self.error


def inline(plugin: Any, tmp_path: Path, *, strict: bool = False) -> Inline:
    handle = RunHandle(id="", name="", dir=tmp_path, config={}, source="inner", post=lambda *each: None)
    return Inline(Caller("inner", plugin), handle, strict)


def test_it_is_called_at_once_without_a_seq(tmp_path: Path) -> None:
    plugin = Inner()
    inline(plugin, tmp_path).call("on_eval", {"metrics": {"a": 1}})
    assert plugin.got == [({"a": 1}, -1)]


def test_what_it_changes_nobody_else_sees(tmp_path: Path) -> None:
    data = {"metrics": {"a": 1}}
    inline(Inner(), tmp_path).call("on_eval", data)
    assert data == {"metrics": {"a": 1}}


def test_a_hook_it_does_not_have_is_not_called(tmp_path: Path) -> None:
    each = inline(Inner(), tmp_path)
    each.call("on_batch_losses", {"step": 1})
    assert each.delivered == 0


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), GeneratorExit()], ids=repr)
def test_what_it_raises_is_contained_and_counted(tmp_path: Path, error: Any, caplog: pytest.LogCaptureFixture) -> None:
    each = inline(Inner(error), tmp_path)
    for _ in range(4):
        each.call("on_eval", {"metrics": {}})
    assert (each.errors, each.delivered) == (4, 4)
    assert caplog.text.count("inline plugin inner failed") == 3


@pytest.mark.parametrize("error", [StopTraining("enough"), KeyboardInterrupt()], ids=repr)
def test_two_things_pass(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        inline(Inner(error), tmp_path).call("on_eval", {"metrics": {}})


def test_where_it_is_strict_everything_passes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        inline(Inner(ValueError("no")), tmp_path, strict=True).call("on_eval", {"metrics": {}})


def test_its_figures(tmp_path: Path) -> None:
    each = inline(Inner(), tmp_path)
    each.call("on_eval", {"metrics": {}})
    figures = each.figures(7, 100)
    assert (figures.state, figures.delivered, figures.committed, figures.seq) == ("inline", 1, 100, 7)
