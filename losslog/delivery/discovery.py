"""Finding plugins and making them.

`discover` and `select` run in the caller of `losslog.Run`; `Plugin.caller` in a lane's thread. Contract:

- Entry points are loaded one at a time and guarded: a broken plugin is named with its distribution and its error.
- Under "auto" what cannot serve is skipped with its reason; what an explicit list names must work, or `PluginError`.
- Blocked names (``LOSSLOG_DISABLE``) are never imported. Who may offer a name: `losslog.delivery.installed`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from losslog.delivery.caller import Caller, free_name, implemented, name_of
from losslog.delivery.installed import OURS, canonical, from_elsewhere, offers
from losslog.delivery.options import COMMON_OPTIONS, check_options, misfit, travels
from losslog.delivery.trust import Trust
from losslog.errors import NotReady, PluginError
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import Once, did_you_mean, warn

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_told: Final = Once()
API: Final = 1  # of the contract with plugins; a class attribute ``losslog_api`` says for which one a plugin was made


class Plugin:
    """One plugin: where it comes from, whether it can serve, and the object once it is made.

    Attributes:
        name: the entry point's name, or the name it was registered under.
        distribution: name and version of the package, or "" for an object of the user's script.
        state: ``found``, ``ready``, ``off``, ``not ready``, ``broken`` or ``blocked``.
        reason: why it is not ready.
        options: its constructor's keyword arguments, and `COMMON_OPTIONS`.
        object: the instance, once made.
    """

    def __init__(self, name: str, distribution: str = "", entry: EntryPoint | None = None) -> None:
        self.name = name
        self.distribution = distribution
        self.state = "found"
        self.reason = ""
        self.options: dict[str, Any] = {}
        self.object: Any = None
        self._entry = entry
        self._factory: Any = None

    @classmethod
    def of_object(cls, thing: Any, name: str | None = None, specs: Sequence[Any] = ()) -> Plugin:
        """A plugin that exists already: an instance or a module with hook implementations.

        Raises:
            TypeError: it implements no hook.
            ValueError: it implements one that there is not, or that cannot be called.
        """
        found = cls(name or name_of(thing))
        if isinstance(thing, type):
            raise TypeError(f"{thing.__name__} is a class: pass an instance, {thing.__name__}(...)")
        if not implemented(thing):
            raise TypeError(f"{found.name} implements no hook: mark its methods with @losslog.hookimpl")
        caller, error = attempt(Caller, found.name, thing, specs)
        if caller is None:
            raise ValueError(f"{found.name}: {error}") from error
        for told in caller.unknown.values():
            raise ValueError(f"{found.name}: {told} (to add your own: run.add_hookspecs, then run.register)")
        found.object, found.state = thing, "ready"
        return found

    @property
    def near(self) -> bool:
        """Whether it must run in the training process: it says so, or holds what cannot travel."""
        return self._entry is None or bool(getattr(self.object, "near", False)) or not travels(self.options)

    def load(self) -> Any:
        """The class (or factory) behind the entry point; None and a reason where the import fails."""
        if self._factory is None and self._entry is not None and self.state != "blocked":
            with from_elsewhere() if self.name in OURS else contextlib.nullcontext():
                self._factory, error = attempt(self._entry.load)
            if error is not None:
                self.state, self.reason = "broken", f"import failed: {one_line(error)}"
        return self._factory

    def make(self) -> BaseException | None:
        """Make the object; on failure `state` and `reason` say why and the error is returned."""
        if self.object is not None:
            return None
        factory = self.load()
        if factory is None:
            return PluginError(self.reason)
        wanted = getattr(factory, "losslog_api", API)
        if wanted != API:
            behind = "the plugin" if isinstance(wanted, int) and wanted < API else "losslog"
            self.state = "not ready"
            self.reason = f"made for plugin API {wanted!r}, this losslog has {API}: upgrade {behind}"
            return PluginError(self.reason)
        options = {key: value for key, value in self.options.items() if key not in COMMON_OPTIONS}
        if (unknown := misfit(factory, options)) is not None:
            self.state, self.reason = "broken", unknown
            return PluginError(unknown)
        self.object, error = attempt(factory, **options)
        if error is None:  # a hook may ask for an argument that this losslog does not have
            _, error = attempt(Caller, self.name, self.object)
        if isinstance(error, NotReady):
            self.state, self.reason = "not ready", str(error)
        elif error is not None:
            self.state, self.reason = "broken", one_line(error)
        else:
            self.state = "ready"
        return error

    def caller(self, specs: Sequence[Any] = (), trust: Trust | None = None) -> Caller:
        """What calls its hooks; the object is made now if need be, which raises what that raises."""
        error = self.make()
        if error is not None:
            raise error
        return Caller(self.name, self.object, specs, trust)

    def __repr__(self) -> str:
        return f"<Plugin {self.name} ({self.distribution or 'object'}) {self.state}>"


def discover(disabled: Iterable[str] | None = None) -> dict[str, Plugin]:
    """Every installed plugin by name, without importing any."""
    blocked = dict.fromkeys(_names(os.environ.get("LOSSLOG_DISABLE", "")) if disabled is None else disabled)
    found: dict[str, Plugin] = {}
    for offer in sorted(offers(), key=lambda each: each.name):
        plugin = Plugin(offer.name, offer.distribution, offer.entry)
        if {offer.name, offer.entry.name} & blocked.keys():
            plugin.state, plugin.reason = "blocked", "LOSSLOG_DISABLE names it"
        elif offer.reason:
            plugin.state, plugin.reason = "off", offer.reason
            _told("plugin %r is not used: %s", offer.entry.name, offer.reason, key=offer.name)
        found[offer.name] = plugin
    for name in blocked:
        if name not in found and name not in OURS:
            _told("LOSSLOG_DISABLE names %r: no such plugin is installed%s", name, did_you_mean(name, found), key=name)
    return found


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def select(plugins: str | Sequence[Any] | None, options: Mapping[str, Mapping[str, Any]] | None = None) -> list[Plugin]:
    """The plugins of a run, each made or with the reason why not.

    Args:
        plugins: "auto" (every installed plugin that is ready; ``LOSSLOG_PLUGINS`` replaces it), a list of names and
            objects, a comma-separated string of names, or None for none.
        options: constructor keyword arguments by plugin name.

    Returns:
        All plugins looked at; those with state ``ready`` serve.

    Raises:
        PluginError: one that was named in a list was not found, did not import, or did not accept its options.
        TypeError: ``options`` or an element of ``plugins`` is of the wrong type.
    """
    chosen = check_options(options)
    installed = discover()
    automatic = plugins == "auto"
    if automatic and os.environ.get("LOSSLOG_PLUGINS") is not None:
        wanted: list[Any] = list(_names(os.environ["LOSSLOG_PLUGINS"]))
        automatic = wanted == ["auto"]
    elif isinstance(plugins, str):
        wanted = _names(plugins)
    else:
        wanted = list(plugins or ())
    for name in chosen.keys() - installed.keys() - {name_of(each) for each in wanted if not isinstance(each, str)}:
        if name not in OURS:
            raise PluginError(f"options are given for {name!r}: {missing(name, installed)}")
        warn("options are given for %r: %s", name, missing(name, installed))  # one script for several machines
    if automatic:
        return [_automatic(plugin, chosen.get(plugin.name)) for plugin in installed.values()]
    found: list[Plugin] = []
    for thing in _once(wanted):
        found.append(_requested(thing, installed, chosen, {plugin.name for plugin in found}))
    return found


def _once(wanted: Sequence[Any]) -> list[Any]:
    """Each of them once; objects may be unhashable."""
    seen: list[Any] = []
    for each in wanted:
        if not any(each is other or (isinstance(each, str) and each == other) for other in seen):
            seen.append(each)
    return seen


def _automatic(plugin: Plugin, options: dict[str, Any] | None) -> Plugin:
    if plugin.state in ("blocked", "off"):
        return plugin
    factory = plugin.load()
    if factory is None:
        return plugin
    variables = getattr(factory, "consent_variables", ())
    if variables and not options and not any(os.environ.get(name) for name in variables):
        plugin.state, plugin.reason = "off", f"set {' or '.join(variables)}, or name it in plugins="
        return plugin
    plugin.options = {**live_options(plugin), **(options or {})}
    error = plugin.make()
    if options and plugin.state == "broken":
        raise PluginError(f"plugin {plugin.name!r} ({plugin.distribution}): {plugin.reason}") from error
    return plugin


def _requested(
    thing: Any, installed: Mapping[str, Plugin], options: Mapping[str, dict[str, Any]], taken: set[str]
) -> Plugin:
    if not isinstance(thing, str):
        name = free_name(name_of(thing), taken)
        plugin = Plugin.of_object(thing, name)
        plugin.options = options.get(name, {})
        return plugin
    name = _meant(thing, installed)
    plugin = installed[name]
    if plugin.state == "blocked":
        return plugin
    plugin.options = {**live_options(plugin), **options.get(name, {})}
    error = plugin.make()
    if error is not None:
        raise PluginError(f"plugin {name!r} ({plugin.distribution}): {plugin.reason}") from error
    return plugin


def named(names: Iterable[str]) -> list[Plugin]:
    """Installed plugins by name, not made yet.

    Raises:
        PluginError: one is not installed.
    """
    installed = discover(disabled=())
    return [installed[_meant(name, installed)] for name in names]


def _meant(name: str, installed: Mapping[str, Plugin]) -> str:
    """The name that a plugin goes by here, where it may be asked for as ``DISTRIBUTION:NAME``.

    Raises:
        PluginError: it is not installed.
    """
    dist, colon, short = name.rpartition(":")
    for each in (name, f"{canonical(dist)}:{short}", short) if colon else (name,):
        found = installed.get(each)
        if found is not None and (
            each != short or not colon or canonical(found.distribution.split()[0]) == canonical(dist)
        ):
            return each
    raise PluginError(missing(name, installed))


def live_options(plugin: Plugin) -> dict[str, Any]:
    """Defaults that a plugin reads off live objects of this process, e.g. the group of a run the user has open."""
    ask = getattr(plugin.load(), "live_options", None)
    if ask is None:
        return {}
    found, error = attempt(ask)
    if error is not None:
        warn("plugin %s: live_options failed: %s", plugin.name, one_line(error))
    return dict(found or {})


def missing(name: str, installed: Iterable[str]) -> str:
    """That a plugin is not there, with the nearest fix."""
    names = sorted(installed)
    told = f"no plugin named {name!r} is installed"
    if name in OURS:
        return f"{told}: pip install losslog-{name}"
    near = did_you_mean(name, {*names, *OURS})
    return f"{told}{near} (installed: {', '.join(names) or 'none'})"
