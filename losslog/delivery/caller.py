"""Calling one plugin's hooks.

The plugin's lane, or the training thread for one that is called inline. Contract:

- A `Caller` owns a pluggy manager with one plugin, so no plugin can stop or reorder another. pluggy checks and finds
  the implementation; the call itself goes to it directly.
- Dicts and lists of a record are copied: what one plugin does to them, no other sees.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Mapping, Sequence
from typing import Any

import pluggy

from losslog import hookspecs
from losslog.journal.records import fresh
from losslog.runtime.containment import attempt


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


def implemented(thing: Any) -> list[str]:
    """The hooks an object implements."""
    probe = pluggy.PluginManager(hookspecs.PROJECT)
    names = (name for name in dir(thing) if not name.startswith("__"))
    return [name for name in names if attempt(probe.parse_hookimpl_opts, thing, name)[0] is not None]


class Caller:
    """Calls one plugin's hooks through pluggy.

    Args:
        name: the plugin's name.
        thing: the plugin object.
        specs: further hook specifications (`losslog.Run.add_hookspecs`).
    """

    def __init__(self, name: str, thing: Any, specs: Sequence[Any] = ()) -> None:
        self.name = name
        self.thing = thing
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        for namespace in (hookspecs, *specs):
            self._manager.add_hookspecs(namespace)
        self._manager.register(thing, name=name)
        self._hooks = {
            hook: getattr(self._manager.hook, hook)
            for hook in implemented(thing)
            if getattr(self._manager.hook, hook, None) is not None
        }
        self._arguments = {
            hook: frozenset(name for impl in caller.get_hookimpls() for name in impl.argnames + impl.kwargnames)
            for hook, caller in self._hooks.items()
        }
        # One plugin, one implementation: called as pluggy would, without its loop over plugins (2 us a call).
        self._direct = {
            hook: (impls[0].function, impls[0].argnames, impls[0].kwargnames)
            for hook, impls in ((hook, caller.get_hookimpls()) for hook, caller in self._hooks.items())
            if len(impls) == 1 and not (impls[0].wrapper or impls[0].hookwrapper)
        }
        known = set(hookspecs.HOOKS) | {name for namespace in specs for name in dir(namespace)}
        self.unknown = sorted(set(self._hooks) - known)
        self._trace = bool(os.environ.get("LOSSLOG_TRACE"))

    def implements(self, hook: str) -> bool:
        """Whether the plugin has this hook."""
        return hook in self._hooks

    def call(self, hook: str, data: Mapping[str, Any], run: Any, seq: int, time: float) -> Any:
        """Call one hook; arguments the record does not carry are None, dicts and lists in it are copied.

        Returns:
            What the implementation returned, None where there is none.
        """
        if hook not in self._hooks:
            return None
        given = {**data, "run": run, "seq": seq, "time": time}
        if self._trace:
            sys.stderr.write(f"losslog trace: {self.name}.{hook} seq={seq} {dict(data)!r}\n")
        if hook in self._direct:
            function, names, defaulted = self._direct[hook]
            if defaulted:
                more = {name: fresh(given[name]) for name in defaulted if given.get(name) is not None}
                return function(*[fresh(each) for each in map(given.get, names)], **more)
            return function(*[fresh(each) for each in map(given.get, names)])
        arguments = dict.fromkeys(hookspecs.ARGUMENTS.get(hook, self._arguments[hook])) | fresh(given)
        results = self._hooks[hook](**arguments)
        return results[0] if results else None
