"""``losslog plugins``: what is installed, whether it is ready, and why not.

Main thread. Contract:

- It makes each plugin that is not blocked, as ``plugins="auto"`` would; none may touch network or disk for that.
"""

from __future__ import annotations

import argparse
import inspect
import json
from typing import Any

from losslog.cli.arguments import add_json, command
from losslog.cli.show import say
from losslog.delivery.discovery import Plugin, discover, missing, select
from losslog.delivery.options import COMMON_OPTIONS, options_of
from losslog.errors import PluginError
from losslog.runtime.containment import printable


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "plugins",
        main,
        "list plugins: distribution, state and why",
        examples=("losslog plugins", "losslog plugins mlflow"),
    )
    parser.add_argument("name", nargs="?", help="show this plugin's options and their defaults")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """List all plugins, or one with its options."""
    if args.name:
        return _one(args.name, args.json)
    found = select("auto")
    if args.json:
        print(json.dumps([_row(plugin) for plugin in found], indent=2))
        return 0
    if not found:
        print("no plugins are installed; e.g. pip install losslog-console")
    width = max((len(plugin.name) for plugin in found), default=0)
    wide = max((len(plugin.distribution) for plugin in found), default=0)
    for plugin in found:
        place = " near" if plugin.state == "ready" and plugin.near else " far" if plugin.state == "ready" else ""
        why = f"  {plugin.reason}" if plugin.reason else ""
        say(f"{plugin.name:<{width}}  {plugin.distribution:<{wide}}  {plugin.state}{place}{why}")
    return 0


def _row(plugin: Plugin) -> dict[str, Any]:
    distribution, _, version = plugin.distribution.rpartition(" ")
    return {
        "name": plugin.name,
        "distribution": distribution,
        "version": version,
        "state": plugin.state,
        "reason": plugin.reason,
        "near": plugin.near if plugin.state == "ready" else None,
    }


def _one(name: str, as_json: bool) -> int:
    installed = discover()
    if name not in installed:
        raise PluginError(missing(name, installed))
    plugin = next(each for each in select("auto") if each.name == name)
    factory = plugin.load()
    options = {} if factory is None else options_of(factory)
    options |= dict.fromkeys(COMMON_OPTIONS, 1)
    text = plugin.reason if factory is None else inspect.getdoc(factory) or ""
    if as_json:
        print(json.dumps(_row(plugin) | {"options": options, "doc": text}, indent=2, default=repr))
        return 0
    if factory is None:
        say(f"{plugin.name} ({plugin.distribution}) {plugin.state}: {text}")
        return 0
    state = f": {plugin.state}: {plugin.reason}" if plugin.reason else ""
    told = f"{plugin.name} ({plugin.distribution}){state}\n\n{text}\n\nOptions and their defaults:"
    print(printable(told.replace("\n\n\n", "")))
    harmless = [*COMMON_OPTIONS, *(each.partition("=")[0] for each in getattr(factory, "journal_options", ()))]
    for key, default in options.items():
        local = "" if key in harmless else "  (a replay does not take it from the journal)"
        say(f"  {key} = {default!r}{local}")
    return 0
