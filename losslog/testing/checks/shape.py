"""Checks of what a plugin is, before it is told anything.

Test thread; the import check uses a process of its own. Contract:

- No backend is touched here.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from losslog.delivery.caller import Caller, implemented
from losslog.delivery.installed import GROUP
from losslog.hookspecs import ARGUMENTS, HOOKS
from losslog.testing.subject import COSTS, Subject

PLACES: Final = frozenset({"uri", "url", "urls", "host", "hosts", "port", "server", "endpoint", "address", "proxy",
                           "dir", "directory", "folder", "path", "paths", "file", "files", "filename", "db", "dsn",
                           "database", "bucket", "key", "token", "password", "secret", "login", "user", "credential",
                           "credentials", "webhook", "writer", "command", "program"})  # fmt: skip
HEAVY: Final = ("torch", "torchvision", "numpy", "pandas", "tensorflow", "matplotlib")

# Finders are wrapped rather than sys.modules filled with None, since find_spec must say that a vendor is not there.
PROBE: Final = """
import importlib, json, sys, time
module, name, options, vendor, heavy, path = json.loads(sys.argv[1])
sys.path[:] = path

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, fullname, path=None, target=None):
        return None if fullname.partition(".")[0] in vendor else self.finder.find_spec(fullname, path, target)
    def __getattr__(self, attribute):
        return getattr(self.finder, attribute)

import losslog
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
before = set(sys.modules)
began = time.perf_counter()
made = "made"
try:
    factory = importlib.import_module(module)
    for part in name.split("."):
        factory = getattr(factory, part)
except Exception as error:
    made = f"import: {type(error).__name__}: {error}"
took = time.perf_counter() - began
if made == "made":
    try:
        factory(**options)
    except losslog.NotReady as error:
        made = f"NotReady: {error}"
    except Exception as error:
        made = f"{type(error).__name__}: {error}"
found = [each for each in heavy if each in sys.modules and each not in before]
print(json.dumps({"made": made, "ms": 1000 * took, "heavy": found, "modules": len(set(sys.modules) - before)}))
"""


class ShapeChecks(Subject):
    """What a plugin is."""

    def test_entry_point(self) -> None:
        """It is installed under its name, and what is there makes plugins."""
        entry = self.entry_point()
        factory = entry.load()
        assert callable(factory), f"{entry.value} in the group {GROUP!r} is not callable: name the plugin's class"
        home = self.home()
        plugin = self.made(home)()
        if isinstance(factory, type):
            assert isinstance(plugin, factory), f"make_plugin gave a {type(plugin).__name__}, {entry.value} is another"

    def test_import_without_vendor(self) -> None:
        """Importing it needs no vendor package and nothing heavy; making it says `losslog.NotReady` where one lacks."""
        plugin = self.made(self.home())()
        factory = plugin if inspect.ismodule(plugin) else type(plugin)
        if inspect.ismodule(factory):
            pytest.skip("the plugin is a module")
        options = self.options(self.home())
        heavy = [*HEAVY, *self.vendor]
        about = [factory.__module__, factory.__qualname__, options, list(self.vendor), heavy, sys.path]
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROBE, json.dumps(about)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"the import failed:\n{done.stderr}"
        said = json.loads(done.stdout.splitlines()[-1])
        COSTS[f"{self.name} (import)"] = f"{said['ms']:.1f} ms, {said['modules']} modules"
        made = said["made"]
        assert not made.startswith("import: "), f"without {', '.join(self.vendor)} the module does not import: {made}"
        assert not said["heavy"], (
            f"importing and making it imports {', '.join(said['heavy'])}: import it in on_run_start"
        )
        if self.vendor:
            assert made.startswith("NotReady: "), (
                f"without {', '.join(self.vendor)} raise losslog.NotReady; got: {made}"
            )

    def test_hooks(self) -> None:
        """Every hook it has exists, and takes arguments that exist."""
        plugin = self.made(self.home())()
        found = implemented(plugin)
        assert found, "it implements no hook: mark its methods with @losslog.hookimpl"
        unknown = [hook for hook in found if hook not in HOOKS]
        assert not unknown, f"there is no hook {', '.join(unknown)}; the hooks are {', '.join(HOOKS)}"
        marked = {name for methods in found.values() for name in methods}
        unmarked = [name for name in HOOKS if name not in marked and callable(getattr(plugin, name, None))]
        assert not unmarked, f"{', '.join(unmarked)}: mark with @losslog.hookimpl, or it is never called"
        for hook, name in ((hook, name) for hook, methods in found.items() for name in methods):
            for each in inspect.signature(getattr(plugin, name)).parameters.values():
                plain = each.kind is each.POSITIONAL_OR_KEYWORD and each.default is each.empty
                assert plain, f"{name}({each}): only plain arguments without a default are passed"
                assert each.name in ARGUMENTS[hook], (
                    f"{name} has no argument {each.name!r}; {hook} offers {', '.join(ARGUMENTS[hook])}"
                )

    def test_hashable(self) -> None:
        """It can be registered: pluggy keeps plugins in dicts."""
        plugin = self.made(self.home())()
        assert plugin.__hash__ is not None, "it is not hashable: @dataclass(eq=False), or no dataclass"
        hash(plugin)
        Caller(self.name or "plugin", plugin)

    def test_attributes(self) -> None:
        """What it says of itself has the right types, and its options are honoured by name."""
        plugin = self.made(self.home())()
        every: Any = getattr(plugin, "flush_every", 0.5)
        assert isinstance(every, int | float), f"flush_every = {every!r}: a number of seconds"
        assert 0 <= every <= 3600, f"flush_every = {every!r}: seconds, from 0"
        assert isinstance(getattr(plugin, "near", False), bool), f"near = {plugin.near!r}: True or False"
        variables = getattr(plugin, "consent_variables", ())
        assert not isinstance(variables, str), f"consent_variables = {variables!r}: a tuple of names"
        secret: Any = getattr(plugin, "secret_options", ())
        assert not isinstance(secret, str), f"secret_options = {secret!r}: a tuple of names"
        both = set(secret) & {str(each).partition("=")[0] for each in getattr(plugin, "journal_options", ())}
        assert not both, f"secret_options and journal_options both have {sorted(both)}: no journal has a secret"

    def test_journal_options(self) -> None:
        """What it lets a journal decide are options it has, and none that says where data go, or what is read."""
        plugin = self.made(self.home())()
        declared: Any = getattr(plugin, "journal_options", ())
        assert not isinstance(declared, str), f"journal_options = {declared!r}: a tuple of names"
        factory = plugin if inspect.ismodule(plugin) else type(plugin)
        signature = inspect.signature(factory) if callable(factory) else inspect.Signature()
        open_ended = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
        for name, _, value in (str(each).partition("=") for each in declared):
            assert open_ended or name in signature.parameters, f"journal_options: there is no option {name!r}"
            dangerous = set(re.split(r"[_\W]+", name.lower())) & PLACES
            assert value or not dangerous, (
                f"journal_options: {name!r} sounds like a place, a credential or a file. Who sends a run folder would "
                "choose it for whoever replays it: leave it out"
            )

    def test_other_rank(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """On a rank that does not log, making it writes nothing: a script makes its plugins on every rank."""
        for variable, value in (("RANK", "1"), ("WORLD_SIZE", "2")):
            monkeypatch.setenv(variable, value)
        monkeypatch.chdir(tmp_path)
        before = _listing(tmp_path)
        self.made(tmp_path)()
        assert _listing(tmp_path) == before, f"rank 1 wrote {sorted(_listing(tmp_path) - before)}"


def _listing(folder: Path) -> set[tuple[str, int]]:
    return {(str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
