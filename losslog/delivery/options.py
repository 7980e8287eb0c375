"""Options of plugins: their form, which there are, which fit.

No thread, no I/O. Contract:

- An option that does not fit is named, with the nearest that does.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any, Final

from losslog.runtime.containment import attempt
from losslog.runtime.notices import did_you_mean

COMMON_OPTIONS: Final = ("batch_every",)  # taken by the lane, so that every plugin has them


def check_options(options: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Options by plugin name, as plain dicts.

    Raises:
        TypeError: they are not that.
    """
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(
            f'options must be a dict by plugin name, e.g. {{"tensorboard": {{}}}}, got {type(options).__name__}'
        )
    for name, value in (options or {}).items():
        if not isinstance(value, Mapping):
            raise TypeError(f"options[{name!r}] must be a dict of that plugin's options, got {type(value).__name__}")
        every = value.get("batch_every", 1)
        if type(every) is not int or every < 1:
            raise TypeError(f"options[{name!r}]['batch_every'] must be a whole number of steps >= 1, got {every!r}")
    return {name: dict(value) for name, value in (options or {}).items()}


def options_of(factory: Any) -> dict[str, Any]:
    """A plugin's options and their defaults, from its constructor's signature."""
    signature, _ = attempt(inspect.signature, factory)
    if signature is None:
        return {}
    found = (
        each for each in signature.parameters.values() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    )
    return {each.name: None if each.default is each.empty else each.default for each in found}


def misfit(factory: Any, options: Mapping[str, Any]) -> str | None:
    """What to say of the first option that a constructor does not take; None where all fit."""
    signature, _ = attempt(inspect.signature, factory)
    if signature is None or any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values()):
        return None
    known = [*options_of(factory), *COMMON_OPTIONS]
    for key in options:
        if key not in known:
            return f"it has no option {key!r}{did_you_mean(key, known)}; it has {', '.join(known)}"
    return None


def travels(options: Mapping[str, Any]) -> bool:
    """Whether options survive the way to another process as JSON."""
    _, error = attempt(json.dumps, options, allow_nan=True)
    return error is None
