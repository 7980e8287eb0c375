"""Discovery, selection and calling: one broken plugin is that plugin's trouble."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from losslog import NotReady, PluginError, hookimpl, hookspec
from losslog.delivery.caller import Caller, name_of
from losslog.delivery.discovery import Plugin, discover, named, select
from losslog.delivery.options import options_of

GOOD = """
from losslog import hookimpl
class Plugin:
    def __init__(self, answer=1):
        self.answer = answer
    @hookimpl
    def on_eval(self, metrics):
        pass
"""


@dataclasses.dataclass
class Unhashable:
    got: list[Any] = dataclasses.field(default_factory=list)

    @hookimpl
    def on_eval(self, metrics: Any, run: Any, seq: int, time: float) -> str:
        self.got.append((metrics, run, seq, time))
        return "answer"


class Hooked:
    @hookimpl
    def on_eval(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugins of this repository are not what is tested here, and importing them takes seconds."""
    monkeypatch.setenv("LOSSLOG_DISABLE", "console,tensorboard,wandb,mlflow,plateau")


def by_name(name: str) -> Plugin:
    return next(each for each in select("auto") if each.name == name)


def test_discovery_names_the_distribution_and_imports_nothing(package: Callable[..., str]) -> None:
    package("raise SystemExit('imported')", "untouched")
    found = discover()["untouched"]
    assert (found.state, found.distribution) == ("found", "losslog-test-untouched 1.0")
    assert "losslog_test_untouched" not in sys.modules


def test_a_plugin_that_is_ready(package: Callable[..., str]) -> None:
    package(GOOD, "fine")
    assert (by_name("fine").state, by_name("fine").near) == ("ready", False)


@pytest.mark.parametrize(
    ("source", "state", "reason"),
    [
        ("raise ImportError('no vendor')", "broken", "import failed: ImportError: no vendor"),
        ("raise SystemExit(3)", "broken", "import failed: SystemExit: 3"),
        ("def x(:", "broken", "import failed: SyntaxError"),
        ("other = 1", "broken", "import failed: AttributeError"),
        ("class Plugin:\n    def __init__(self): raise ValueError('a\\x1b[31m')", "broken", "ValueError: a?[31m"),
        ("class Plugin:\n    def __init__(self): raise SystemExit", "broken", "SystemExit"),
        ("from losslog import NotReady\nclass Plugin:\n    def __init__(self): raise NotReady('get it')", "not ready",
         "get it"),
        ("class Plugin:\n    consent_variables = ('LOSSLOG_TEST_URI',)", "off", "set LOSSLOG_TEST_URI"),
    ],
    ids=range(8),
)  # fmt: skip
def test_under_auto_what_cannot_serve_is_skipped_with_its_reason(
    package: Callable[..., str], source: str, state: str, reason: str
) -> None:
    package(source, "trouble")
    package(GOOD, "fine")
    found = by_name("trouble")
    assert found.state == state
    assert found.reason.startswith(reason)
    assert by_name("fine").state == "ready"


@pytest.mark.parametrize(
    "source",
    ["raise ImportError('no vendor')", "class Plugin:\n    def __init__(self): raise ValueError('no')",
     "from losslog import NotReady\nclass Plugin:\n    def __init__(self): raise NotReady('get it')"],
    ids=range(3),
)  # fmt: skip
def test_what_was_asked_for_by_name_must_serve(package: Callable[..., str], source: str) -> None:
    package(source, "trouble")
    with pytest.raises(PluginError, match=r"plugin 'trouble' \(losslog-test-trouble 1.0\)"):
        select(["trouble"])


def test_a_name_that_is_not_installed_is_answered_with_what_is(package: Callable[..., str]) -> None:
    package(GOOD, "fine")
    with pytest.raises(PluginError) as caught:
        select(["fin"])
    assert str(caught.value).startswith("no plugin named 'fin' is installed (did you mean 'fine'?) (installed: ")
    assert "pip install" not in str(caught.value)


def test_only_what_there_is_to_install_is_offered_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", list)
    with pytest.raises(PluginError) as caught:
        select(["mlflow"])
    assert str(caught.value) == "no plugin named 'mlflow' is installed: pip install losslog-mlflow"
    with pytest.raises(PluginError) as caught:
        select(["mlfow"])
    assert str(caught.value) == "no plugin named 'mlfow' is installed (did you mean 'mlflow'?) (installed: none)"


def test_an_option_it_does_not_take_is_refused(package: Callable[..., str]) -> None:
    package(GOOD, "fine")
    for plugins in (["fine"], "auto"):
        with pytest.raises(PluginError) as caught:
            select(plugins, {"fine": {"anser": 1}})
        assert str(caught.value) == (
            "plugin 'fine' (losslog-test-fine 1.0): it has no option 'anser' (did you mean 'answer'?); "
            "it has answer, batch_every"
        )


def test_options_reach_it(package: Callable[..., str]) -> None:
    package(GOOD, "fine")
    assert select("fine", {"fine": {"answer": 42, "batch_every": 5}})[0].object.answer == 42


@pytest.mark.parametrize("options", [[], "x", {"a": 1}, {"a": {"batch_every": 0}}, {"a": {"batch_every": 1.5}},
                                     {"a": {"batch_every": True}}], ids=repr)  # fmt: skip
def test_options_of_the_wrong_form_are_refused(options: Any) -> None:
    with pytest.raises(TypeError, match="options"):
        select(None, options)


def test_options_for_a_plugin_that_there_is_not_are_refused(package: Callable[..., str]) -> None:
    package(GOOD, "fine")
    with pytest.raises(PluginError) as caught:
        select("auto", {"fin": {}})
    text = "options are given for 'fin': no plugin named 'fin' is installed (did you mean 'fine'?) (installed: "
    assert str(caught.value).startswith(text)


def test_options_for_a_plugin_that_is_not_on_this_machine_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", list)
    select("auto", {"mlflow": {}})
    assert caplog.messages == [
        "options are given for 'mlflow': no plugin named 'mlflow' is installed: pip install losslog-mlflow"
    ]


def test_consent_by_a_variable(package: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    package("class Plugin:\n    consent_variables = ('LOSSLOG_TEST_URI',)", "network")
    monkeypatch.setenv("LOSSLOG_TEST_URI", "http://127.0.0.1:1")
    assert by_name("network").state == "ready"


def test_consent_by_an_option(package: Callable[..., str]) -> None:
    package("class Plugin:\n    consent_variables = ('X',)\n    def __init__(self, uri=''): pass", "network")
    assert next(each for each in select("auto", {"network": {"uri": "a"}}) if each.name == "network").state == "ready"


def test_blocked_plugins_are_never_imported(package: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    package("raise SystemExit('imported')", "blocked")
    monkeypatch.setenv("LOSSLOG_DISABLE", "other, blocked,console,tensorboard,wandb,mlflow,plateau")
    assert by_name("blocked").state == "blocked"
    assert select(["blocked"])[0].state == "blocked"
    assert "losslog_test_blocked" not in sys.modules


def test_a_variable_replaces_auto(package: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    package(GOOD, "one")
    package("raise SystemExit('imported')", "two")
    monkeypatch.setenv("LOSSLOG_PLUGINS", "one")
    assert [each.name for each in select("auto")] == ["one"]
    assert "losslog_test_two" not in sys.modules


def test_a_variable_never_replaces_an_explicit_list(
    package: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package(GOOD, "one")
    monkeypatch.setenv("LOSSLOG_PLUGINS", "nonsense")
    assert [each.name for each in select(["one"])] == ["one"]


def test_two_distributions_with_one_name(package: Callable[..., str], tmp_path: Path, caplog: Any) -> None:
    package(GOOD, "twice")
    other = tmp_path / "site-packages" / "another-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 2.0\n")
    (other / "entry_points.txt").write_text("[losslog.plugins]\ntwice = losslog_test_twice:Plugin\n")
    assert discover()["twice"].state == "found"
    assert "is offered by" in caplog.text


def test_none_means_none() -> None:
    assert select(None) == []


def test_objects_are_near() -> None:
    thing = Unhashable()
    (found,) = select([thing])
    assert (found.object, found.name, found.near, found.state) == (thing, "Unhashable", True, "ready")


def test_the_same_object_twice_counts_once() -> None:
    thing = Unhashable()
    assert len(select([thing, thing])) == 1


def test_two_objects_of_one_class_have_two_names() -> None:
    found = select([Unhashable(), Unhashable(), Unhashable()])
    assert [each.name for each in found] == ["Unhashable", "Unhashable-2", "Unhashable-3"]


def test_options_that_cannot_travel_make_a_plugin_near(package: Callable[..., str]) -> None:
    package(GOOD, "fine")
    assert select(["fine"], {"fine": {"answer": object()}})[0].near


def test_a_class_instead_of_an_instance_is_explained() -> None:
    with pytest.raises(TypeError, match=r"Hooked is a class: pass an instance, Hooked\(\.\.\.\)"):
        select([Hooked])


@pytest.mark.parametrize("thing", [object(), 5, types.SimpleNamespace()], ids=["object", "number", "namespace"])
def test_an_object_without_hooks_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="implements no hook"):
        Plugin.of_object(thing)


def test_a_module_can_be_a_plugin() -> None:
    module = types.ModuleType("my_hooks")
    exec("from losslog import hookimpl\n@hookimpl\ndef on_eval(metrics): return 7", module.__dict__)
    assert Plugin.of_object(module).name == "my_hooks"
    assert Caller("m", module).call("on_eval", {"metrics": {}}, None, 0, 0.0) == 7


def test_names() -> None:
    assert (name_of(Hooked()), name_of(name_of), name_of(types)) == ("Hooked", "name_of", "types")


def test_a_plugin_that_cannot_be_hashed_is_called() -> None:
    thing = Unhashable()
    assert Caller("u", thing).call("on_eval", {"metrics": {"a": 1}}, "run", 3, 4.0) == "answer"
    assert thing.got == [({"a": 1}, "run", 3, 4.0)]


def test_arguments_a_record_does_not_carry_are_none() -> None:
    class Greedy:
        @hookimpl
        def on_batch_losses(self, step, lr, batch_size, ranks, n, spread):
            return step, lr, batch_size, ranks, n, spread

    assert Caller("g", Greedy()).call("on_batch_losses", {"step": 1}, None, 0, 0.0) == (1, *[None] * 5)


def test_arguments_of_a_newer_version_are_passed_over() -> None:
    assert Caller("u", Unhashable()).call("on_eval", {"metrics": {}, "brand_new": 1}, None, 0, 0.0) == "answer"


@pytest.mark.parametrize("key", ["self", "run", "seq", "time"])
def test_a_foreign_record_cannot_choose_who_is_called(key: str) -> None:
    thing = Unhashable()
    assert Caller("u", thing).call("on_eval", {"metrics": {}, key: "x"}, "run", 3, 4.0) == "answer"
    assert thing.got == [({}, "run", 3, 4.0)]


def test_an_argument_that_does_not_exist_is_refused() -> None:
    class Typo:
        @hookimpl
        def on_eval(self, metrcs: Any) -> None:
            pass

    with pytest.raises(ValueError, match="metrcs") as caught:
        Caller("t", Typo())
    assert str(caught.value) == (
        "on_eval has no argument 'metrcs' (did you mean 'metrics'?); "
        "there are epoch, step, split, metrics, run, seq, time"
    )


def test_an_argument_of_a_hook_under_another_name_is_refused_too() -> None:
    class Typo:
        @hookimpl(specname="on_eval")
        def seen(self, metrcs: Any) -> None:
            pass

    with pytest.raises(ValueError, match="seen has no argument 'metrcs'"):
        Caller("t", Typo())


NAME_THEM = "name the arguments you want; there are epoch, step, split, metrics, run, seq, time"


def generator(self: Any, metrics: Any) -> Any:
    yield metrics


async def coroutine(self: Any, metrics: Any) -> None:
    pass


def keywords(self: Any, **data: Any) -> None:
    pass


def rest(self: Any, *data: Any) -> None:
    pass


def by_keyword(self: Any, *, metrics: Any) -> None:
    pass


def no_self(metrics: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("function", "said"),
    [(generator, "on_eval is a generator or a coroutine: a hook is a plain function"),
     (coroutine, "on_eval is a generator or a coroutine: a hook is a plain function"),
     (keywords, f"on_eval takes **data: {NAME_THEM}"), (rest, f"on_eval takes *data: {NAME_THEM}"),
     (by_keyword, f"on_eval takes metrics by keyword only: leave out the *; {NAME_THEM.partition('; ')[2]}"),
     (no_self, "on_eval has no self: its first argument, metrics, would be the object itself")],
)  # fmt: skip
@pytest.mark.parametrize("marks", [{}, {"wrapper": True}, {"hookwrapper": True}], ids=str)
def test_what_cannot_be_called_as_a_hook_is_refused(function: Any, said: str, marks: dict[str, bool]) -> None:
    thing = type("Thing", (), {"on_eval": hookimpl(**marks)(function)})()
    with pytest.raises(ValueError, match="on_eval") as caught:
        Caller("t", thing)
    assert str(caught.value) == said


def test_a_hook_that_is_not_marked_beside_one_that_is_would_never_be_called() -> None:
    class Half:
        @hookimpl
        def on_eval(self) -> None:
            pass

        def on_run_end(self) -> None:
            pass

    with pytest.raises(ValueError, match="on_run_end is not marked: put @losslog"):
        Caller("t", Half())


def test_the_hook_that_failed_is_known() -> None:
    class Scalars:
        @hookimpl
        def on_scalars(self) -> None:
            raise ValueError("mine")

    caller = Caller("t", Scalars())
    with pytest.raises(ValueError, match="mine"):
        caller.call("on_eval", {"metrics": {"x": 1.0}, "epoch": 1, "split": "val"}, None, 0, 0.0)
    assert caller.called == "on_scalars"


def test_a_hook_that_does_not_exist_is_named() -> None:
    class Typo:
        @hookimpl
        def on_evall(self) -> None:
            pass

    assert Caller("t", Typo()).unknown == {"on_evall": "there is no hook on_evall (did you mean 'on_eval'?)"}


def test_hooks_of_ones_own() -> None:
    class Specs:
        @hookspec
        def on_sample(self, image: str) -> None:
            """An image was drawn."""

    class Mine:
        @hookimpl
        def on_sample(self, image: str) -> str:
            return image

    caller = Caller("m", Mine(), (Specs,))
    assert caller.unknown == {}
    assert caller.call("on_sample", {"image": "a"}, None, 0, 0.0) == "a"


def test_one_plugins_error_does_not_reach_anothers() -> None:
    class Bad:
        @hookimpl
        def on_eval(self) -> None:
            raise ValueError("mine alone")

    bad, good = Caller("bad", Bad()), Caller("good", Unhashable())
    with pytest.raises(ValueError, match="mine alone"):
        bad.call("on_eval", {"metrics": {}}, None, 0, 0.0)
    assert good.call("on_eval", {"metrics": {}}, None, 0, 0.0) == "answer"


def test_an_attribute_that_raises_is_no_obstacle() -> None:
    class Odd(Unhashable):
        @property
        def trap(self) -> None:
            raise RuntimeError("do not look")

    assert Plugin.of_object(Odd()).state == "ready"


def test_a_trace_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOSSLOG_TRACE", "1")
    Caller("u", Unhashable()).call("on_eval", {"split": "val", "metrics": {"a": 1}}, None, 3, 0.0)
    assert capsys.readouterr().err == "losslog trace: u.on_eval seq=3 {'split': 'val', 'metrics': {'a': 1}}\n"


def test_options_are_read_off_the_constructor() -> None:
    def make(a, b=2, *, c="x", **rest):
        pass

    assert options_of(make) == {"a": None, "b": 2, "c": "x"}


def test_plugins_by_name_are_not_made(package: Callable[..., str]) -> None:
    package(GOOD.replace("self.answer = answer", "raise NotImplementedError"), "later")
    (found,) = named(["later"])
    assert found.object is None
    with pytest.raises(NotImplementedError):
        found.caller()


def test_not_ready_is_a_losslog_error() -> None:
    assert NotReady.__mro__[1].__name__ == "LosslogError"
