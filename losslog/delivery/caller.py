"""Calling one plugin's hooks.

The plugin's lane, or the training thread for one that is called inline. Contract:

- A `Caller` owns a pluggy manager with one plugin, so no plugin can stop or reorder another. pluggy checks and finds
  the implementation; the call itself goes to it directly.
- Dicts and lists of a record are copied: what one plugin does to them, no other sees.
- A record with numbers is one call of ``on_scalars``, then one of its own hook, as far as the plugin has them. Where
  the first raises, the second is not made: a record is delivered or not, as a whole.
- A method is the hook that its mark names (``hookimpl(specname=...)``), else the one it is named after. It is a plain
  function that names the arguments it wants; anything else is refused, with what there is.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Container, Mapping, Sequence
from typing import Any, Final

import pluggy

from losslog import hookspecs
from losslog.delivery.trust import OWN, Trust
from losslog.runtime.containment import attempt
from losslog.runtime.notices import did_you_mean
from losslog.runtime.settings import switch
from losslog.tags import SCALAR_HOOKS, points_of

_LATER: Final = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
_FLAT: Final = {int, float, str, bool, type(None)}
_NESTED: Final = {dict, list}
_ALWAYS: Final[Mapping[str, dict[str, Any]]] = {  # what a hook is never called without; a run's name besides
    "on_run_start": {"config": {}, "options": {}, "origin": {}, "resumed": False},
    "on_eval": {"split": "val", "metrics": {}},
    "on_metrics": {"metrics": {}},
    "on_images": {"split": "val", "name": "images", "images": []},
    "on_alert": {"level": "info", "title": "", "text": "", "source": "", "key": ""},
    "on_run_end": {"status": "crashed"},
}
FLUSH_EVERY: Final = 0.5  # seconds, unless the plugin says otherwise


def fresh(value: Any) -> Any:
    """A copy of plain data that shares no dict and no list with it: what one plugin does to it, no other sees."""
    if type(value) is dict:
        if _FLAT.issuperset(map(type, value.values())):
            return value.copy()
        return {key: fresh(item) if type(item) in (dict, list) else item for key, item in value.items()}
    if type(value) is list:
        return [fresh(item) if type(item) in (dict, list) else item for item in value]
    return value


def name_of(thing: Any) -> str:
    """The name an object goes by: a module's or function's own, else its class's."""
    own = getattr(thing, "__name__", None)
    return str(own if isinstance(own, str) else type(thing).__name__)


def free_name(base: str, taken: Container[str]) -> str:
    """``base``, or ``base-2``, ``base-3``... where that is taken."""
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return name


class _Manager(pluggy.PluginManager):
    """Passes over attributes that raise when they are looked at, whatever version of pluggy looks."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """The marks of a method; None where it has none."""
        return attempt(super().parse_hookimpl_opts, plugin, name)[0]


def implemented(thing: Any) -> dict[str, list[str]]:
    """The hooks an object implements, each with the names of the methods that do."""
    probe = _Manager(hookspecs.PROJECT)
    found: dict[str, list[str]] = {}
    for name in dir(thing):
        marks = None if name.startswith("__") else probe.parse_hookimpl_opts(thing, name)
        if marks is not None:
            found.setdefault(marks.get("specname") or name, []).append(name)
    return found


def hooks_of(namespace: Any) -> dict[str, tuple[str, ...]]:
    """The hooks a namespace specifies (`losslog.hookspec`), each with its arguments."""
    probe = pluggy.PluginManager(hookspecs.PROJECT)
    marked = (name for name in dir(namespace) if attempt(probe.parse_hookspec_opts, namespace, name)[0] is not None)
    found = {name: inspect.signature(getattr(namespace, name)).parameters for name in marked}
    return {name: tuple(each for each in parameters if each != "self") for name, parameters in found.items()}


def check(thing: Any, hooks: Mapping[str, Sequence[str]]) -> None:
    """Whether an object's methods can be called as the hooks they say they are.

    Args:
        thing: the plugin object.
        hooks: the hooks there are, each with its arguments.

    Raises:
        ValueError: one cannot; the message names it, and what there is.
    """
    marked = implemented(thing)
    methods = {name for several in marked.values() for name in several}
    for hook in hooks if marked and not inspect.ismodule(thing) else ():
        if hook not in methods and inspect.isroutine(getattr(type(thing), hook, None)):
            raise ValueError(f"{hook} is not marked: put @losslog.hookimpl before it, or it is never called")
    for hook, several in marked.items():
        for name in several if hook in hooks else ():
            function = inspect.unwrap(getattr(thing, name))
            if any(is_one(function) for is_one in _LATER):
                raise ValueError(f"{name} is a generator or a coroutine: a hook is a plain function")
            signature, _ = attempt(inspect.signature, function)
            offered = dict.fromkeys([*hooks[hook], "run", "seq", "time"])
            there = f"there are {', '.join(offered)}"
            behind = getattr(function, "__func__", None)
            first = None if behind is None else next(iter(inspect.signature(behind).parameters), None)
            if first in offered:
                raise ValueError(f"{name} has no self: its first argument, {first}, would be the object itself")
            for each in {} if signature is None else signature.parameters.values():
                if each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL):
                    stars = "**" if each.kind is each.VAR_KEYWORD else "*"
                    raise ValueError(f"{name} takes {stars}{each.name}: name the arguments you want; {there}")
                if each.kind is each.KEYWORD_ONLY:
                    raise ValueError(f"{name} takes {each.name} by keyword only: leave out the *; {there}")
                if each.default is each.empty and each.name not in (*offered, "self"):  # else of another version
                    near = did_you_mean(each.name, offered)
                    raise ValueError(f"{name} has no argument {each.name!r}{near}; {there}")


class Caller:
    """Calls one plugin's hooks through pluggy.

    Args:
        name: the plugin's name.
        thing: the plugin object.
        specs: further hook specifications (`losslog.Run.add_hookspecs`).
        trust: whose word the records are; None: that of the process's own user.

    Attributes:
        called: the hook that was called last.
        newest_only: whether it only shows, and need not get every batch.
        flush_every: seconds between flushes.
        unknown: hooks that there are not, with what to say of each.
        misspelt: what to say of them where they may be a script's own.

    Raises:
        ValueError: the object asks for what there is not.
    """

    def __init__(self, name: str, thing: Any, specs: Sequence[Any] = (), trust: Trust | None = None) -> None:
        self.name, self.thing, self._trust = name, thing, trust
        self._manager = _Manager(hookspecs.PROJECT)
        for namespace in (hookspecs, *specs):
            self._manager.add_hookspecs(namespace)
        offered = dict(hookspecs.ARGUMENTS)
        for namespace in specs:
            offered |= hooks_of(namespace)
        check(thing, offered)
        self._manager.register(thing, name=name)
        self._hooks = {hook: getattr(self._manager.hook, hook) for hook in implemented(thing)}
        # One plugin, one implementation: called as pluggy would, without its loop over plugins (2 us a call).
        several = {hook: caller.get_hookimpls() for hook, caller in self._hooks.items()}
        self._direct = {hook: (impls[0].function, impls[0].argnames, impls[0].kwargnames)
                        for hook, impls in several.items() if len(impls) == 1}  # fmt: skip
        optional = {hook for hook, impls in several.items() if all(each.optionalhook for each in impls)}
        self.called = ""
        unknown = sorted(set(self._hooks) - set(offered) - optional)
        self.unknown = {hook: f"there is no hook {hook}{did_you_mean(hook, offered)}" for hook in unknown}
        # what is like nothing may be a hook of the script's own, or of another version
        self.misspelt = [
            told if "did you mean" in told else f"{hook} is none of losslog's hooks: called where a script emits it"
            for hook, told in self.unknown.items()
        ]
        self._scalar_hooks = SCALAR_HOOKS if "on_scalars" in self._hooks else ()
        self._trace = switch("LOSSLOG_TRACE", False)
        every = getattr(thing, "flush_every", FLUSH_EVERY)
        if isinstance(every, bool) or not isinstance(every, int | float) or not every >= 0:
            raise ValueError(f"its flush_every is {every!r:.60}: give a number of seconds")
        self.flush_every = float(every)
        self.newest_only = getattr(thing, "newest_only", False) is True

    def implements(self, hook: str) -> bool:
        """Whether a record of this hook means a call of the plugin."""
        return hook in self._hooks or hook in self._scalar_hooks

    def call(self, hook: str, data: Mapping[str, Any], run: Any, seq: int, time: float) -> Any:
        """Call one hook, and ``on_scalars`` before it where the record has numbers and the plugin wants them.

        Arguments the record does not carry are None, or what stands for nothing; dicts and lists in it are copied.

        Returns:
            What the hook's implementation returned, None where there is none.
        """
        if hook in self._scalar_hooks:
            points = points_of(hook, data)
            if points is not None and points.series:
                series, axis, x = points
                about = {"series": series, "axis": axis, "x": x, "run": run, "seq": seq, "time": time}
                self._call("on_scalars", about, own=True)
        elif hook == "on_checkpoint":
            there = data.get("path")
            if not there or (self._trust is not None and not self._trust.admits(data, run.dir, seq)):
                return None
        elif hook == "on_images" and hook in self._hooks:
            data = (self._trust or OWN).seen(data, run.dir, seq)
        return self._call(hook, {**data, "run": run, "seq": seq, "time": time}) if hook in self._hooks else None

    def _call(self, hook: str, given: Mapping[str, Any], *, own: bool = False) -> Any:
        """Call one hook; dicts and lists are copied but where nobody else has them (``own``)."""
        self.called = hook
        if hook in _ALWAYS:  # a plugin may rely on these; a journal may be anybody's
            there = {"name": given["run"].name} if hook == "on_run_start" else {}
            lacking = {key: each for key, each in (_ALWAYS[hook] | there).items() if given.get(key) is None}
            given = {**given, **lacking}
        if self._trace:
            data = {name: given[name] for name in given if name not in ("run", "seq", "time")}
            sys.stderr.write(f"losslog trace: {self.name}.{hook} seq={given['seq']} {data!r}\n")
        if hook in self._direct:
            function, names, defaulted = self._direct[hook]
            if own and not defaulted:
                return function(*map(given.get, names))
            more = {name: fresh(given[name]) for name in defaulted if given.get(name) is not None}
            return function(*[fresh(each) if type(each) in _NESTED else each for each in map(given.get, names)], **more)
        caller = self._hooks[hook]
        wanted = (name for impl in caller.get_hookimpls() for name in impl.argnames)
        names = wanted if caller.spec is None else caller.spec.argnames
        results = caller(**dict.fromkeys(names) | fresh(given))
        return results[0] if results else None
