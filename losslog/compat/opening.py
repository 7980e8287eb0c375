"""Which run a training under a framework is logged to, and which of its learning rates are worth a series.

Training thread. Contract:

- A checkpoint that knows its run goes on with it, wherever the folder of runs has been moved; where that cannot be, a
  new run begins, and it is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from losslog.errors import LosslogError
from losslog.history import records
from losslog.journal.resuming import resumed
from losslog.run import Run, script_name
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import warn

MANY: Final = 16  # groups without names; where there are more, the first one's rate is logged


def opened(
    options: dict[str, Any], past: Mapping[str, Any] | None, done: int | None, leave: Callable[[str], None]
) -> Run:
    """The run that a checkpoint was of, else a new one, or that which the user wants to go on with.

    Args:
        options: of `losslog.Run`.
        past: what a checkpoint says.
        done: epochs that a framework says are behind it, where its checkpoints say nothing.
        leave: told the folder that is gone on with, before.
    """
    if past is None:
        return Run(**options | _behind(options, done, leave))
    numbers = {"resume_epoch": past["epoch"], "resume_step": past["step"]}
    if "resume" in options:
        return Run(**(numbers | options if options["resume"] else options))
    folder = Path(str(past["run"]))
    if not folder.is_dir():  # the folder of runs was moved
        folder = Path(os.fspath(options.get("dir", "runs")), *folder.parts[-2:])
    leave(os.fspath(folder))
    try:
        return Run(**options, **numbers, resume=folder)
    except LosslogError as error:
        warn("the checkpoint's run cannot be gone on with, a new one begins: %s", one_line(error))
        return Run(**options)


def _behind(options: Mapping[str, Any], done: int | None, leave: Callable[[str], None]) -> dict[str, Any]:
    """From where a run is gone on with behind an epoch, whose last step is in its journal."""
    if done is None or not options.get("resume") or {"resume_epoch", "resume_step"} & options.keys():
        return {}
    name, where = options.get("name"), os.fspath(options.get("dir", "runs"))
    directory = Path((where == "runs" and os.environ.get("LOSSLOG_DIR")) or where)
    found, _ = attempt(resumed, options["resume"], directory, name, str(name or script_name()))
    if found is None or found.folder is None:  # a new run begins, or the run says what is wrong
        return {}
    leave(os.fspath(found.folder))
    ends = {each.data["epoch"]: each.data["step"] for each in records(found.folder, hooks=("on_epoch_end",))}
    if done and done not in ends:  # its end came to the checkpoint, but not to the journal
        steps = records(found.folder, hooks=("on_batch_losses",))
        ends[done] = max((each.data["step"] for each in steps if each.data["epoch"] <= done), default=-1)
    return {"resume": found.folder, "resume_epoch": done, "resume_step": ends.get(done, -1)}


def _few(found: Any) -> Any:
    """Rates by group without those that say nothing: groups without names that are alike, or very many."""
    if not isinstance(found, dict) or not all(name.isdigit() for name in found):
        return found
    return next(iter(found.values()), None) if len(set(found.values())) == 1 or len(found) > MANY else found


def together(known: Sequence[tuple[Any, Any]]) -> Any:
    """The rates of several optimizers as one: by number and class where there are several.

    Args:
        known: each with its rates.
    """
    if len(known) == 1:
        return _few(known[0][1])
    found: dict[str, Any] = {}
    for index, (optimizer, rate) in enumerate(known):
        name, each = f"{index}-{type(optimizer).__name__}", _few(rate)
        found |= {f"{name}/{group}": one for group, one in each.items()} if isinstance(each, dict) else {name: each}
    return {name: rate for name, rate in found.items() if rate is not None} or None
