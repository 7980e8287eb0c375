"""The command ``losslog`` (= ``python -m losslog``): one module a command.

Main thread. Contract:

- A command module offers ``add_parser(commands)``, which adds a `losslog.cli.arguments.command` with its ``main``; what
  is expensive it imports in ``main``.
- ``main(args)`` returns the exit code, or a function that gives it and whose exceptions are not ours (`run`).
- What a terminal cannot show is escaped, in every command alike; a script that `run` runs has the streams as they were.
- Errors a person can mend are one line on stderr and exit code 2; Ctrl-C is exit code 130.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
from argparse import SUPPRESS
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from losslog.cli.arguments import Help, Parser
from losslog.errors import LosslogError
from losslog.runtime.containment import printable
from losslog.runtime.notices import logger, prepare

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("demo", "train", "run"),
    "look": ("ls", "show", "watch", "compare", "report", "diagnose", "plugins"),
    "take": ("cat", "export"),
    "deliver": ("replay", "follow"),
    "tidy": ("prune", "compress"),
    "extend": ("new-plugin",),
}
COMMANDS: Final = tuple(name for names in GROUPS.values() for name in names)


def build_parser(only: str | None = None) -> Parser:
    """The parser.

    Args:
        only: load this command alone, so that a command does not pay for the others; None loads all.
    """
    from losslog import __version__

    parser = Parser(
        prog="losslog", usage="losslog [-h] [--version] COMMAND ...",
        description="See every loss of a multi-loss training run, in every tracker.",
        formatter_class=Help, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"losslog {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command_name", metavar="COMMAND", required=True,
                                       prog="losslog", help=SUPPRESS)  # fmt: skip
    for name in COMMANDS if only is None else (only,):
        importlib.import_module(f"losslog.cli.{name.replace('-', '_')}").add_parser(commands)
    parser.commands = commands.choices
    parser.epilog = "\n".join(_listed(parser.commands))
    return parser


def _listed(parsers: Mapping[str, Parser]) -> Iterable[str]:
    """The commands by what they are for."""
    for group, names in GROUPS.items():
        yield f"{group}:"
        yield from (f"  {name:<12}{parsers[name].summary}" for name in names if name in parsers)
    yield "\nlosslog COMMAND --help says more of each."


@contextlib.contextmanager
def _degrading() -> Iterator[None]:
    """Names that a terminal cannot show (cp1252, ASCII) are escaped while a command runs, rather than refused."""
    streams = [each for each in (sys.stdout, sys.stderr) if isinstance(each, io.TextIOWrapper)]
    before = [each.errors for each in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            if not stream.closed:
                stream.reconfigure(errors=errors)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 1 (it failed), 2 (wrong usage), 130 (Ctrl-C).
    """
    words = sys.argv[1:] if argv is None else list(argv)
    only = words[0] if words and words[0] in COMMANDS else None
    parser = build_parser(only)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        parser.commands[args.command_name].refuse(unknown)
    prepare()
    if getattr(args, "verbose", False):
        logger.setLevel(logging.DEBUG)
    try:
        with _degrading():
            outcome = args.command(args)
    except KeyboardInterrupt:
        sys.stderr.write(f"losslog {args.command_name}: stopped\n")
        return 130
    except BrokenPipeError:  # losslog show ... | head
        sys.stderr.close()
        return 0
    except (LosslogError, OSError) as error:
        text = " ".join(printable(str(error)).split())
        sys.stderr.write(f"losslog {args.command_name}: {text or type(error).__name__}\n")
        return 2
    return int(outcome() if callable(outcome) else outcome)
