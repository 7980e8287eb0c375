"""The reference pages that are read off the code: hooks, commands, options of the plugins.

Used by the documentation's build (`scripts/docs_hooks.py`) and by its tests. Contract:

- Nothing is written twice: signatures, texts and defaults are those of the code, so a page cannot be wrong about them.
"""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from losslog import hookspecs
from losslog.cli import build_parser
from losslog.delivery.discovery import discover
from losslog.delivery.options import COMMON_OPTIONS

SPELLED_OUT = {"LossArg": "dict[str, float] | float", "LrArg": "dict[str, float] | float | None"}
HEADING = re.compile(r"^([A-Z][A-Za-z ]+):$", re.MULTILINE)


def sections(thing: Any) -> dict[str, str]:
    """A docstring in parts: "" is what comes before the first heading."""
    text = inspect.getdoc(thing) or ""
    parts = HEADING.split(text)
    found = {"": parts[0].strip()}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        found[name] = textwrap.dedent(body.strip("\n")).strip()
    return found


def entries(body: str) -> dict[str, str]:
    """``name: text`` items of an Arguments section; continued lines belong to the item above."""
    found: dict[str, str] = {}
    name = ""
    for line in body.splitlines():
        start = re.match(r"(\*{0,2}\w+): (.*)", line)
        if start:
            name, found[start[1]] = start[1], start[2]
        elif name:
            found[name] += " " + line.strip()
    return found


def markdown(text: str) -> str:
    """Docstring text as Markdown on one line: ``literal`` and `name` become code, bars outside it are escaped."""
    parts = " ".join(text.replace("``", "`").split()).split("`")
    return "`".join(part if number % 2 else part.replace("|", "\\|") for number, part in enumerate(parts))


def annotation(parameter: inspect.Parameter) -> str:
    """A parameter's type as written."""
    found = parameter.annotation
    if found is parameter.empty:
        return ""
    text = found if isinstance(found, str) else inspect.formatannotation(found)
    for short, long in SPELLED_OUT.items():
        text = text.replace(short, long)
    return f"`{text}`"


# ------------------------------------------------------------------ hooks


def signature_of(hook: str) -> str:
    """The hook with its arguments, as the heading of the reference gives it."""
    return f"{hook}({', '.join(hookspecs.ARGUMENTS[hook])})"


def hooks_page() -> str:
    """Every hook with its arguments."""
    lines = [
        "# Hooks",
        "",
        "A plugin is any object with methods that bear these names and are marked with `@losslog.hookimpl`. "
        "This page is generated from `losslog/hookspecs.py`.",
        "",
        "- An implementation names only the arguments it wants. Arguments are only ever added.",
        "- Every hook also offers `run` (a handle: `id`, `name`, `dir`, `config`, `rank`, `alert(...)`, "
        "`request_stop(reason)`, `request_lr(factor, group=None)`), `seq` (the record's number in the run, from 0) "
        "and `time` (seconds since the epoch, stamped once when the record was made).",
        "- An argument that a record does not carry is None.",
        "- A hook is called on the plugin's lane, a thread of its own; with `inline=True` on the training thread.",
        "- A hook may raise: `BackendUnavailable` has it called again later, anything else skips this record for this "
        "plugin.",
        "- Records come in order. One may come again after an outage or a kill; its `seq` and `time` are the same.",
        "- `losses` and `val_loss` are a dict of floats or one float, as the training loop gave them. "
        "`on_scalars` has both as named series, for a plugin that needs no more than the numbers.",
        "",
        "| hook | called |",
        "|---|---|",
    ]
    for hook in hookspecs.HOOKS:
        called = markdown(sections(getattr(hookspecs, hook))["Called when"])
        lines.append(f"| [`{hook}`](#{hook}) | {called} |")
    for hook in hookspecs.HOOKS:
        lines += _hook(hook)
    return "\n".join(lines) + "\n"


def _hook(hook: str) -> Iterator[str]:
    specification = getattr(hookspecs, hook)
    parts = sections(specification)
    texts = entries(parts.get("Arguments", ""))
    yield from ("", f"### `{signature_of(hook)}` {{#{hook} data-toc-label='{hook}'}}", "", markdown(parts[""]), "")
    yield from (f"**Called when.** {markdown(parts['Called when'])}", "")
    if texts:
        yield from ("| argument | type | |", "|---|---|---|")
        for name, parameter in inspect.signature(specification).parameters.items():
            if name in texts:
                yield f"| `{name}` | {annotation(parameter)} | {markdown(texts[name])} |"
        yield ""
    for heading in ("Returns", "Thread", "May raise"):
        if heading in parts:
            yield from (f"**{heading}.** {markdown(parts[heading])}", "")


# ------------------------------------------------------------------ commands


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command."""
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise LookupError("the command line has no commands")


def options_in(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Everything a command takes and shows, without --help."""
    return [
        each
        for each in parser._actions
        if each.help is not argparse.SUPPRESS and not isinstance(each, argparse._HelpAction)
    ]


def commands_page() -> str:
    """Every command with its options."""
    helps = {
        each.dest: each.help or ""
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
        for each in action._choices_actions
    }
    lines = [
        "# Command line",
        "",
        "`losslog` and `python -m losslog` are the same command. This page is generated from its parsers; "
        "`losslog COMMAND --help` says the same.",
        "",
        "- RUN is a run folder, a run id or its beginning, or `latest`.",
        "- `-o PLUGIN.KEY=VALUE` sets an option of a plugin. The value is JSON, or else text. "
        "It beats the options kept in the journal.",
        "- Exit codes: 0; 1 where something was left undone; 2 for wrong usage, in one line on stderr; 130 for Ctrl-C.",
        "",
        "| command | |",
        "|---|---|",
        *(f"| [`losslog {name}`](#losslog-{name}) | {markdown(helps.get(name, ''))} |" for name in commands()),
    ]
    for name, parser in commands().items():
        lines += _command(name, parser, helps.get(name, ""))
    return "\n".join(lines) + "\n"


def _command(name: str, parser: argparse.ArgumentParser, summary: str) -> Iterator[str]:
    parser.prog = f"losslog {name}"
    words = re.findall(r"\[[^\]]*\]|\S+", parser.format_usage().removeprefix("usage: "))
    joined = " ".join(" ".join(word.split()).replace(" ", "\0") for word in words)
    usage = textwrap.fill(joined, 88, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
    usage = usage.replace("\0", " ")
    yield from ("", f"## losslog {name}", "", markdown(parser.description or f"{summary[:1].upper()}{summary[1:]}."))
    yield from ("", "```text", usage, "```", "")
    yield from ("| option | default | |", "|---|---|---|")
    for action in options_in(parser):
        yield f"| {_spelled(action)} | {_default(action)} | {_help(action)} |"


def _spelled(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else None
    if not action.option_strings:
        return f"`{metavar or action.dest}`"
    takes = action.nargs != 0
    value = f" {metavar or action.dest.upper()}" if takes and not action.choices else ""
    *short, last = action.option_strings
    return ", ".join([*(f"`{each}`" for each in short), f"`{last}{value}`"])


def _default(action: argparse.Action) -> str:
    if action.required and action.option_strings:
        return "required"
    if action.nargs == 0 or action.default in (None, [], argparse.SUPPRESS):
        return "required" if not action.option_strings and action.nargs is None else ""
    return f"`{action.default}`"


def _help(action: argparse.Action) -> str:
    text = re.sub(r" \(default: [^)]*\)", "", (action.help or "")).replace("%%", "%")
    if action.choices:
        text = f"{', '.join(f'`{each}`' for each in action.choices)}. {text}"
    return markdown(text)


# ------------------------------------------------------------------ plugins


def factories() -> dict[str, Callable[..., Any]]:
    """The class behind every installed plugin of this repository."""
    found = {}
    for name, plugin in discover(disabled=()).items():
        factory = plugin.load()
        if factory is not None and plugin.distribution.startswith("losslog-"):
            found[name] = factory
    return found


def parameters_of(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """A constructor's parameters; ``**settings`` too."""
    return dict(inspect.signature(factory).parameters)


def options_page() -> str:
    """Every plugin's options."""
    lines = [
        "# Options of the plugins",
        "",
        "Options are the keyword arguments of a plugin's constructor. Give them by "
        '`losslog.Run(..., options={"tensorboard": {"layout": False}})`, or on the command line by '
        "`-o tensorboard.layout=false`. This page is generated from the constructors; `losslog plugins NAME` says the "
        "same of what is installed.",
        "",
        "Every plugin also takes `batch_every` (default 1): the mean over so many steps goes to that backend. "
        "The journal keeps every step.",
    ]
    for name, factory in sorted(factories().items()):
        lines += _plugin(name, factory)
    return "\n".join(lines) + "\n"


def _plugin(name: str, factory: Callable[..., Any]) -> Iterator[str]:
    parts = sections(factory)
    texts = entries(parts.get("Args", ""))
    place = "in the training process (near)" if getattr(factory, "near", False) is True else "in the follower (far)"
    yield from ("", f"## {name}", "", f"{markdown(parts[''])} It runs {place}.", "")
    variables = getattr(factory, "consent_variables", ())
    if variables:
        named = " or ".join(f"`{each}`" for each in variables)
        yield from (f'Under `plugins="auto"` it is on where {named} is set, or where an option is given.', "")
    yield from ("| option | type | default | |", "|---|---|---|---|")
    for option, parameter in parameters_of(factory).items():
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        text = texts.get(stars + option, "")
        default = "" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        shown = f"`{stars}{option}`"
        yield f"| {shown} | {annotation(parameter)} | {default} | {markdown(text)} |"
    for option in COMMON_OPTIONS:
        yield f"| `{option}` | `int` | `1` | losslog's own: the mean over n steps becomes one point. |"
