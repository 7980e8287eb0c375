"""What ``losslog train --resume`` takes from a run folder, which may be anybody's: looked at before the run is touched.

Main thread. Contract:

- A setting of the journal has to be one that the command line would take.
- A checkpoint has to load, and its optimizer to step: a value that would end in a traceback later is refused here.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from losslog.cli.arguments import UsageError
from losslog.runtime.containment import attempt

_RATES: Final = ("lr", "initial_lr", "weight_decay")
_STATES: Final = {"SGD": {"momentum_buffer"}, "AdamW": {"step", "exp_avg", "exp_avg_sq"}}
_MOST: Final = 1 << 63


def unusable(action: argparse.Action, value: Any) -> str:
    """Why a value of a journal cannot be what an option says; "" where it can.

    Args:
        action: the option.
        value: plain data.
    """
    if value is None:
        return "" if action.default is None else "nothing stands there"
    if action.nargs == 0:
        return "" if isinstance(value, bool) else "it is neither true nor false"
    if action.type is None:
        if not isinstance(value, str) or "\0" in value or attempt(os.fsencode, value)[1] is not None:
            return "it is no name"
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return "it is no number"
    else:
        kind: Any = action.type
        _, error = attempt(kind, str(value))
        if isinstance(error, argparse.ArgumentTypeError):
            return f"it has to be {kind.__name__}: {error}"
        if error is not None:
            return f"it is no {kind.__name__}"
    if action.choices is not None and value not in action.choices:
        return f"there are {', '.join(map(str, action.choices))}"
    return ""


def check_states(content: dict[str, Any], optimizer: Any, others: Iterable[tuple[str, Any]]) -> None:
    """Whether the states of a checkpoint can be gone on with; what only another version knows is left out.

    Args:
        content: of `losslog.engine.read_checkpoint`; changed.
        optimizer: freshly made.
        others: scheduler and scaler by name, freshly made, or None.

    Raises:
        UsageError: names what cannot.
    """
    groups = content["optimizer"]["param_groups"]
    for number, (group, live) in enumerate(zip(groups, optimizer.param_groups, strict=False)):
        for key in live.keys() - {"params", "name"}:
            if key not in group or not (_number(live[key]) or isinstance(live[key], tuple)):
                group[key] = live[key]  # of another version: what it lacks, and switches
            elif not _alike(group[key], live[key], 1 if key not in _RATES else _MOST):
                raise UsageError(f"its optimizer's {key} (group {number}) cannot be used")
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    _check_moments(content["optimizer"], parameters, _STATES[type(optimizer).__name__])
    for name, live in others:
        if live is None or content[name] is None:
            continue  # whether both are there the engine says
        fresh = live.state_dict()
        content[name] = {key: value for key, value in content[name].items() if key in fresh}
        for key, value in fresh.items():
            if key not in content[name] or not _alike(content[name][key], value, _MOST):
                raise UsageError(f"its {name}'s {key} cannot be used")


def _check_moments(state: Mapping[str, Any], parameters: list[Any], names: set[str]) -> None:
    """What the optimizer remembers of each parameter.

    Raises:
        UsageError: names the parameter.
    """
    import torch

    places, _ = attempt(lambda: [place for group in state["param_groups"] for place in group["params"]])
    if places is None or len(places) != len(parameters) or not all(type(each) is int for each in places):
        raise UsageError("its optimizer is of other parameters")
    owners = dict(zip(places, parameters, strict=True))
    for place, moments in state["state"].items():
        fits = place in owners and isinstance(moments, Mapping) and (not moments or names <= moments.keys())
        for name in names if fits and moments else ():
            value = moments[name]
            if name == "step":
                fits = fits and _alike(value.item() if _is_one(value) else value, 0.0, _MOST)
            elif isinstance(value, torch.Tensor):
                plain = value.is_floating_point() and value.layout == torch.strided
                fits = fits and plain and value.shape == owners[place].shape
            else:
                fits = fits and value is None and name == "momentum_buffer"
        if not fits:
            raise UsageError(f"its optimizer's state of parameter {place!s:.20} cannot be used")


def _is_one(value: Any) -> bool:
    """Whether it is a tensor of one number."""
    return getattr(value, "ndim", None) == 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _alike(value: Any, fresh: Any, below: float) -> bool:
    """Whether a value is of the kind of a fresh one: numbers from 0 on and below something, in lists of one length."""
    if _number(fresh):
        whole = isinstance(value, int) or not isinstance(fresh, int)
        return _number(value) and whole and 0 <= value < below and math.isfinite(value)
    if isinstance(fresh, list | tuple):
        several = isinstance(value, list | tuple) and len(value) == len(fresh)
        return several and all(_alike(one, other, below) for one, other in zip(value, fresh, strict=True))
    return type(value) is type(fresh)
