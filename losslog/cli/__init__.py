"""The command ``losslog`` (= ``python -m losslog``): one module a command.

Main thread. Contract:

- A command module offers ``add_parser(commands)`` and ``main(args) -> int``, which it
  sets as the parser's ``command``; what is expensive it imports in ``main``.
- Errors a person can mend are one line on stderr and exit code 2; Ctrl-C is exit code 130.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from losslog.errors import LosslogError
from losslog.runtime.notices import prepare

COMMANDS: Final = ("demo", "train", "run", "plugins", "show", "diagnose", "replay", "follow", "new-plugin")


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser.

    Args:
        only: load this command alone, so that a command does not pay for the others; None loads all.
    """
    from losslog import __version__

    parser = argparse.ArgumentParser(
        prog="losslog", description="See every loss of a multi-loss training run, in every tracker.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"losslog {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command_name", metavar="COMMAND", required=True)
    for name in COMMANDS if only is None else (only,):
        importlib.import_module(f"losslog.cli.{name.replace('-', '_')}").add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 1 (it failed), 2 (wrong usage), 130 (Ctrl-C).
    """
    words = sys.argv[1:] if argv is None else list(argv)
    only = words[0] if words and words[0] in COMMANDS else None
    args = build_parser(only).parse_args(words)
    prepare()
    if args.command_name == "run":  # the script's exceptions are its own
        return int(args.command(args))
    try:
        return int(args.command(args))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # losslog show ... | head
        sys.stderr.close()
        return 0
    except (LosslogError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        sys.stderr.write(f"losslog {args.command_name}: {error}\n")
        return 2
