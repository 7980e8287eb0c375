"""What commands share on the command line: their parser, RUN, --dir, -o, --to, numbers.

Main thread. Contract:

- Wrong usage is one line on stderr with the nearest fix, and exit code 2.
- ``--dir`` beats ``LOSSLOG_DIR``, which beats ``runs``, in every command.
- Help shows a default where there is one, and ends with examples.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

from losslog.cli.numbers import whole
from losslog.errors import LosslogError
from losslog.journal.folder import find, misnamed
from losslog.runtime.containment import one_line
from losslog.runtime.notices import did_you_mean

RUN: Final = "run folder, run id (or its beginning), name, NAME/ID, latest, or NAME/latest"
TOGETHER: Final = 8  # runs at once
_CHOICE: Final = re.compile(r"(.*invalid choice: )'([^']*)' \(choose from (.*)\)")


class UsageError(LosslogError):
    """Something on the command line, or in the data it names, that the user can put right."""


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults where there are some, and examples as they are typed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        if isinstance(action.default, list):
            return f"{action.help} (default: {', '.join(action.default)})"
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "".join(indent + line for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong.

    Attributes:
        summary: what the list of commands says of it.
        commands: the parsers of commands, by name.
    """

    summary = ""
    commands: Mapping[str, Parser] = MappingProxyType({})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; the words are kept for what may be said of them."""
        self._words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Say it, and exit with 2."""
        choice = _CHOICE.fullmatch(message)
        if choice:
            known = [word.strip("' ") for word in choice[3].split(",")]
            what = "no command " if "COMMAND" in choice[1] else choice[1]
            message = f"{what}{choice[2]!r}{did_you_mean(choice[2], known) or ': there are ' + ', '.join(known)}"
        elif "arguments are required" in message:
            message = self._misspelt() or message.replace("the following arguments are required: ", "missing: ")
            message = message.removesuffix(", ARGS")  # none is enough
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        sys.exit(2)

    def settings(self) -> dict[str, argparse.Action]:
        """Its options and arguments, by the names that the namespace has for them."""
        return {each.dest: each for each in self._actions}

    def _misspelt(self) -> str:
        """What to say of the first option that does not exist, since it may be what is missing; "" for none."""
        known = [each for action in self._actions for each in action.option_strings]
        for word in self._words:
            name = word.partition("=")[0]
            if name.startswith("--") and name not in known:
                return f"unknown option {name}{did_you_mean(name, known)}"
        return ""

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Say that nothing here takes these words."""
        self._words = list(words)
        self.error(self._misspelt() or f"unknown argument {words[0]!r}")


def command(
    commands: Any, name: str, main: Callable[[argparse.Namespace], Any], summary: str, description: str = "",
    examples: Iterable[str] = (),
) -> Parser:  # fmt: skip
    """Add a command.

    Args:
        commands: argparse's subparsers.
        name: the command.
        main: carries it out; returns its exit code, or a function that gives it.
        summary: one line, for the list of commands.
        description: what it does, for its help.
        examples: lines as they are typed.
    """
    lines = "\n".join(f"  {line}" for line in examples)
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=description or f"{summary[:1].upper()}{summary[1:]}.",
        epilog=f"examples:\n{lines}" if lines else None,
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.summary = summary
    parser.set_defaults(command=main)
    return parser


def add_run(parser: Any, *, optional: bool = False) -> None:
    """RUN; ``latest`` where it may be left out."""
    parser.add_argument("run", metavar="RUN", help=RUN, **({"nargs": "?", "default": "latest"} if optional else {}))


def add_runs(parser: Any, *, least: int = 1) -> None:
    """RUN [RUN2 ...]; ``latest`` where one is enough and none is said."""
    alone = {"nargs": "*", "default": ["latest"]} if least < 2 else {"nargs": "+"}
    parser.add_argument("runs", metavar="RUN", help=f"{RUN}; up to {TOGETHER} of them", **alone)


def add_dir(parser: Any) -> None:
    """--dir."""
    default = os.environ.get("LOSSLOG_DIR") or "runs"
    parser.add_argument("--dir", default=default, metavar="PATH", help="where runs lie: PATH/NAME/RUN")


def add_resume(parser: Any) -> None:
    """--resume."""
    parser.add_argument("--resume", metavar="RUN", help="go on with a run: folder, id, name, latest, NAME/latest, or "
                        "auto: the newest of this name where it is unfinished, else a new one")  # fmt: skip


def add_options(parser: Any, example: str = "mlflow.tracking_uri=http://host:5000") -> None:
    """-o PLUGIN.KEY=VALUE."""
    parser.add_argument("-o", "--option", action="append", default=[], metavar="PLUGIN.KEY=VALUE",
                        help=f"a plugin's option, e.g. {example}; repeatable")  # fmt: skip


def add_plugins(parser: Any) -> None:
    """--plugins."""
    parser.add_argument("--plugins", metavar="A,B", help="only these plugins; unset: all that are ready")


def add_verbose(parser: Any) -> None:
    """--verbose."""
    parser.add_argument("--verbose", action="store_true", help="say also what logging cost")


def add_json(parser: Any) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def folder_of(args: argparse.Namespace) -> Path:
    """The run folder that RUN means.

    Raises:
        JournalError: there is none.
    """
    return find(args.run, args.dir)


def folders_of(args: argparse.Namespace, *, least: int = 1) -> list[Path]:
    """The folders of the runs named, each once.

    Raises:
        JournalError: one of them is none.
        UsageError: there are too few, or too many.
    """
    found = list(dict.fromkeys(find(run, args.dir) for run in args.runs))
    if len(found) < least:
        raise UsageError(f"name at least {least} different runs, e.g. by their ids (losslog ls)")
    if len(found) > TOGETHER:
        raise UsageError(f"{len(found)} runs are more than the {TOGETHER} that can be told apart at once")
    return found


def file_at(said: str, name: str) -> Path:
    """The file that -o means: itself, or one of that name in a folder.

    Raises:
        UsageError: there is no such folder.
    """
    path = Path(said)
    if path.is_dir() or said.endswith(("/", os.sep)):
        path /= name
    if not path.parent.is_dir():
        raise UsageError(f"{said} cannot be written (there is no folder {path.parent}): make it, or say -o FILE")
    return path


def reason(error: OSError) -> str:
    """Why a file cannot be written, without the name of the file that was tried on the way."""
    return error.strerror or one_line(error)


def names_in(text: str) -> list[str]:
    """``a,b`` as a list of names, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def plugins_in(args: argparse.Namespace) -> str | list[str]:
    """What --plugins says, as `losslog.Run` takes it."""
    return "auto" if args.plugins is None else names_in(args.plugins)


def parse_options(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["mlflow.tracking_uri=X", "tensorboard.layout=false"]`` as options by plugin; values are JSON or text.

    Raises:
        UsageError: a word is not of the form PLUGIN.KEY=VALUE.
    """
    options: dict[str, dict[str, Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        plugin, dot, key = name.partition(".")
        if not (equals and dot and plugin and key):
            raise UsageError(f"option {word!r}: write PLUGIN.KEY=VALUE, e.g. mlflow.tracking_uri=http://127.0.0.1:5000")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        options.setdefault(plugin, {})[key] = value
    return options


def run_name(text: str) -> str:
    """Argument type: the name of a run that may be new.

    Raises:
        argparse.ArgumentTypeError: RUN means something else by it.
    """
    if why := misnamed(text):
        raise argparse.ArgumentTypeError(f"no run can be called {text!r}: {why}; choose another name")
    return text


def positive_int(text: str) -> int:
    """An argument that counts from 1."""
    return whole(text, 1)


def count(text: str) -> int:
    """An argument that counts from 0."""
    return whole(text, 0)


def positive(text: str) -> float:
    """An argument that is a positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def not_negative(text: str) -> float:
    """An argument that is a number from 0 on."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


# argparse says "invalid <name> value"
positive_int.__name__ = count.__name__ = "whole number"
positive.__name__ = not_negative.__name__ = "number"


def finite(value: Any) -> Any:
    """Plain data as strict JSON: what is not finite is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value
