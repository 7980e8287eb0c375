"""A method that implements a hook of another name: called where the hook exists, told where it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import losslog
from losslog import hookimpl, hookspec
from losslog.delivery.caller import Caller, implemented
from losslog.delivery.discovery import Plugin

Made = Callable[..., losslog.Run]

SOURCE = """
from losslog import hookimpl
class Plugin:
    @hookimpl(specname="{hook}")
    def report(self, run):
        (run.dir / "seen").touch()
"""


class Named:
    """Its hook goes by another name."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    @hookimpl(specname="on_eval")
    def report(self, epoch: int, metrics: Any) -> None:
        self.got.append((epoch, metrics))


class Misnamed:
    """Its hook does not exist."""

    @hookimpl(specname="on_evall")
    def report(self) -> None:
        raise AssertionError("called")


def evaluate(run: losslog.Run) -> None:
    run.log_eval({"AP": 0.5}, epoch=2)
    run.close()


def test_it_is_called_when_registered(make_run: Made) -> None:
    run, plugin = make_run(), Named()
    run.register(plugin)
    evaluate(run)
    assert plugin.got == [(2, {"AP": 0.5})]


def test_it_is_called_in_step(make_run: Made) -> None:
    run, plugin = make_run(), Named()
    run.register(plugin, inline=True)
    run.log_eval({"AP": 0.5}, epoch=2)
    assert plugin.got == [(2, {"AP": 0.5})]


def test_it_is_called_as_one_of_a_runs_plugins(make_run: Made) -> None:
    plugin = Named()
    evaluate(make_run(plugins=[plugin]))
    assert plugin.got == [(2, {"AP": 0.5})]


@pytest.mark.parametrize("follower", [False, True])
def test_it_is_called_behind_an_entry_point(make_run: Made, package: Callable[..., str], follower: bool) -> None:
    package(SOURCE.format(hook="on_eval"), "named")
    run = make_run(plugins=["named"], follower=follower)
    evaluate(run)
    assert (run.dir / "seen").exists()


def test_a_function_of_a_script_is_the_hook_it_was_given_for(make_run: Made) -> None:
    run, got = make_run(), []

    @run.on("on_eval")
    @hookimpl(specname="on_alert")
    def report(epoch: int) -> None:
        got.append(epoch)

    evaluate(run)
    assert got == [2]


def test_a_hook_that_does_not_exist_is_refused_when_registered(make_run: Made) -> None:
    run = make_run()
    for inline in (False, True):
        with pytest.raises(ValueError, match="there is no hook on_evall"):
            run.register(Misnamed(), inline=inline)


def test_a_hook_that_does_not_exist_is_refused_of_a_runs_plugins(make_run: Made) -> None:
    with pytest.raises(ValueError, match="there is no hook on_evall"):
        make_run(plugins=[Misnamed()])


def test_a_hook_that_does_not_exist_is_told_behind_an_entry_point(
    make_run: Made, package: Callable[..., str], caplog: Any
) -> None:
    package(SOURCE.format(hook="on_evall"), "misnamed")
    run = make_run(plugins=["misnamed"])
    evaluate(run)
    assert "plugin misnamed: there is no hook on_evall" in caplog.text
    assert not (run.dir / "seen").exists()


def test_an_optional_hook_may_be_missing() -> None:
    class Newer:
        @hookimpl(optionalhook=True)
        def on_moonrise(self) -> None:
            raise AssertionError("called")

    caller = Caller("newer", Newer())
    assert not caller.unknown
    assert not caller.implements("on_eval")


def test_a_hook_of_ones_own_by_another_name() -> None:
    class Specs:
        @hookspec
        def on_sample(self, image: str) -> None:
            """An image was drawn."""

    class Mine:
        @hookimpl(specname="on_sample")
        def draw(self, image: str) -> str:
            return image

    caller = Caller("mine", Mine(), (Specs,))
    assert not caller.unknown
    assert caller.call("on_sample", {"image": "a"}, None, 0, 0.0) == "a"


def test_two_methods_for_one_hook_are_both_called() -> None:
    class Twice(Named):
        @hookimpl
        def on_eval(self, epoch: int, metrics: Any) -> None:
            self.got.append(epoch)

        @hookimpl(specname="on_scalars")
        def keep(self, series: Any, x: int) -> None:
            self.got.append((x, series))

    plugin = Twice()
    assert implemented(plugin) == {"on_eval": ["on_eval", "report"], "on_scalars": ["keep"]}
    Caller("twice", plugin).call("on_eval", {"epoch": 1, "metrics": {"a": 1.0}}, None, 0, 0.0)
    assert plugin.got[0] == (1, {"eval/a": 1.0})
    assert len(plugin.got) == 3


def test_an_argument_that_does_not_exist_is_refused_by_either_name() -> None:
    class Typo:
        @hookimpl(specname="on_eval")
        def report(self, metrcs: Any) -> None:
            pass

    with pytest.raises(Exception, match="metrcs"):
        Caller("t", Typo())


def test_an_object_whose_only_hook_has_another_name_is_a_plugin() -> None:
    assert Plugin.of_object(Named()).state == "ready"
