"""``losslog new-plugin NAME``: a plugin of one's own that works as generated.

Main thread. Contract:

- ``DIR/losslog-NAME`` gets a distribution ``losslog-NAME`` with the module ``losslog_NAME`` and the entry point NAME:
  it installs, is discovered, passes the conformance kit, and writes what it is told.
- Nothing that exists is overwritten, and nothing is left half done.
- The text comes from the templates beside this module; ``@NAME@`` and the like are replaced.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from losslog.cli.arguments import command
from losslog.delivery.discovery import discover
from losslog.errors import LosslogError

NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
LONGEST: Final = 40
TAKEN: Final = ("auto", "none", "all", "plugin", "testing")  # words that options and the house use


class UnusableName(LosslogError):
    """The name cannot be a plugin's, or the place is taken."""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "new-plugin",
        main,
        "make a plugin of your own that works as generated",
        "Makes DIR/losslog-NAME: a distribution with a plugin that writes JSON lines, its tests and a README. Put your "
        "backend in its place.",
        ("losslog new-plugin influx", "losslog new-plugin influx --minimal --dir plugins"),
    )
    parser.add_argument("name", metavar="NAME", help="what users will call it: lower-case letters, digits, - and _")
    parser.add_argument("--dir", default=".", metavar="DIR", help="where to make it")
    parser.add_argument("--minimal", action="store_true", help="the smallest that works: under 40 lines in all")


def main(args: argparse.Namespace) -> int:
    """Make it, and say what to type next."""
    folder = generate(args.name, Path(args.dir), minimal=args.minimal)
    module = module_name(args.name)
    shown = folder if Path(args.dir).is_absolute() else Path(args.dir) / folder.name
    plugin, test = f"src/{module}/plugin.py", "tests/test_conformance.py"
    if args.minimal:
        plugin, test = f"{module}.py", f"test_{module}.py"
    width = max(len(plugin), len(test))
    print(
        f"""made {shown}/ with
  {plugin:<{width}}   the plugin: replace the file by your backend
  {test:<{width}}   losslog's checks; tell them how to read your backend back

next:
  pip install -e '{shown}{"" if args.minimal else "[test]"}'
  pytest {shown}
  losslog plugins
  losslog demo --plugins console,{args.name}"""
    )
    return 0


def check_name(name: str) -> None:
    """Whether a plugin may be called that.

    Raises:
        UnusableName: it may not; the message says why.
    """
    if name.startswith(("losslog-", "losslog_")):
        raise UnusableName(f"{name!r}: leave out the beginning, {name[8:]!r} will do")
    if not NAME.fullmatch(name):
        raise UnusableName(
            f"{name!r} cannot be a plugin's name: use lower-case letters and digits, beginning with a letter, "
            "with single - or _ between them"
        )
    if len(name) > LONGEST:
        raise UnusableName(f"{name!r} is too long: at most {LONGEST} characters")
    if name in TAKEN:
        raise UnusableName(f"{name!r} means something else to losslog: choose another name")
    installed = discover(disabled=())
    if name in installed:
        raise UnusableName(f"a plugin named {name!r} is installed already ({installed[name].distribution})")


def module_name(name: str) -> str:
    """The import package of the plugin called ``name``."""
    return f"losslog_{name.replace('-', '_')}"


def generate(name: str, directory: Path, *, minimal: bool = False) -> Path:
    """Make the distribution.

    Args:
        name: the plugin's name.
        directory: where its folder goes; made where it does not exist.
        minimal: the smallest that works.

    Returns:
        The folder ``losslog-<name>``.

    Raises:
        UnusableName: the name is refused, or the folder exists.
    """
    from losslog import __version__

    check_name(name)
    folder = directory / f"losslog-{name}"
    if folder.exists():
        raise UnusableName(f"{folder} exists: remove it, or choose another name or --dir")
    module = module_name(name)
    words = {
        "NAME": name,
        "MODULE": module,
        "DISTRIBUTION": f"losslog-{name}",
        "CLASS": "".join(part.capitalize() for part in re.split("[-_]", name)) + "Plugin",
        "VERSION": __version__,
    }
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".losslog-{name}-", dir=directory) as scratch:
        made = Path(scratch) / folder.name
        for place, text in _templates(files("losslog.cli") / ("minimal" if minimal else "templates")):
            path = made / _placed(place, module)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(re.sub("@([A-Z]+)@", lambda match: words[match[1]], text), "utf-8")
        made.rename(folder)
    return folder


def _templates(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if each.is_dir():
            yield from _templates(each, f"{prefix}{each.name}/")
        elif each.name.endswith(".tmpl"):
            yield prefix + each.name.removesuffix(".tmpl"), each.read_text("utf-8")


def _placed(place: str, module: str) -> str:
    if place == "gitignore":  # with its dot it would be one in our own repository
        return ".gitignore"
    if place in ("plugin.py", "test.py"):
        return place.replace("plugin", module).replace("test", f"test_{module}")
    return place.replace("src/", f"src/{module}/", 1) if place.startswith("src/") else place
