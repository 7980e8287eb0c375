"""Checkpoints: everything a run needs to go on as if it had never stopped. Runs on the training thread.

Contract:

- A checkpoint appears whole or not at all: written to a temporary name in the same folder, synced, renamed.
- It holds tensors and plain values only and is loaded with ``weights_only=True``: a file from elsewhere runs no code.
- What is read is a regular file, and of the types that are used later: neither a pipe nor an odd value gets further.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from losslog.control import group_name
from losslog.errors import LosslogError
from losslog.instrument.rng import rng_state, set_rng_state
from losslog.runtime.containment import attempt, one_line

FOLDER: Final = "checkpoints"
_NAME: Final = re.compile(r"epoch_(\d+)\.pth")
_KEYS: Final = ("model", "optimizer", "scheduler", "scaler", "epoch", "step", "rng")


class CheckpointError(LosslogError):
    """A checkpoint cannot be found, read, or does not fit the model it is to be loaded into."""


def checkpoint_path(folder: str | Path, epoch: int) -> Path:
    """Returns the path of an epoch's checkpoint in a run folder: ``checkpoints/epoch_005.pth``."""
    return Path(folder) / FOLDER / f"epoch_{epoch:03d}.pth"


def find_checkpoint(folder: str | Path) -> Path:
    """Returns the newest checkpoint of a run folder.

    Raises:
        CheckpointError: there is none.
    """
    found = epochs_in(Path(folder) / FOLDER)
    if not found:
        raise CheckpointError(f"no checkpoint {FOLDER}/epoch_*.pth in {folder}")
    return found[-1][1]


def epochs_in(folder: Path) -> list[tuple[int, Path]]:
    """Returns the epochs' checkpoints in a folder, the newest last."""
    matched = ((_NAME.fullmatch(path.name), path) for path in folder.glob("*.pth"))
    return sorted((int(match[1]), path) for match, path in matched if match)


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the model inside DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def save_checkpoint(
    path: str | Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    step: int,
    scheduler: Any = None,
    scaler: Any = None,
    generator: torch.Generator | None = None,
) -> Path:
    """Writes a checkpoint.

    Args:
        path: the file; its folder is made.
        model: its own state is saved, without wrappers.
        optimizer: with its parameter groups.
        epoch: the last complete epoch.
        step: the next global step.
        scheduler: anything with ``state_dict()``.
        scaler: a `torch.amp.GradScaler`.
        generator: the training loader's own generator.

    Returns:
        The path.

    Raises:
        OSError: the disk does not take it; an older file of that name is still whole then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "model": unwrapped(model).state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler is not None else None,
        "scaler": scaler.state_dict() if scaler is not None else None,
        "epoch": epoch,
        "step": step,
        "rng": rng_state(generator),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:  # torch's archive writer raises over what the file's write raised
                if isinstance(error.__context__, KeyboardInterrupt | OSError):
                    raise error.__context__ from None
                raise
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C included: leave no half-written file behind
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return path


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint into CPU memory.

    Returns:
        ``model``, ``optimizer``, ``scheduler``, ``scaler``, ``epoch``, ``step``, ``rng``.

    Raises:
        CheckpointError: no such file, not a checkpoint, or one that holds more than tensors and plain values.
    """
    try:
        content = read_tensors(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint {path}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    missing = [key for key in _KEYS if key not in content] if isinstance(content, dict) else list(_KEYS)
    if missing:
        raise CheckpointError(f"{path} is not a checkpoint of losslog: it has no {missing[0]!r}")
    if odd := _odd(content):
        raise CheckpointError(f"{path} cannot be used as a checkpoint: its {odd}")
    return dict(content)


def read_tensors(path: str | Path) -> Any:
    """Reads a file of ``torch.save`` into CPU memory.

    Raises:
        OSError: it is no regular file, or cannot be opened.
        ValueError: it is no such file, or holds more than tensors and plain values; the message says which.
    """
    if not os.path.isfile(path):
        os.stat(path)
        raise OSError("it is no regular file")
    content, error = attempt(torch.load, path, map_location="cpu", weights_only=True)
    if isinstance(error, OSError):
        raise error
    if isinstance(error, EOFError):
        raise ValueError("it is empty, or was cut")
    if isinstance(error, RuntimeError) and not isinstance(error, RecursionError):  # of the archive's reader
        raise ValueError(one_line(error).partition(": ")[2]) from error
    if error is not None:  # an unpickler's text tells nothing, or advises to load it unsafely
        raise ValueError("it is no file of torch.save, or holds more than tensors and plain values") from error
    return content


def in_words(value: Any) -> str:
    """What a file holds in place of what belongs there."""
    text = attempt(repr, value)[0] if value is None or isinstance(value, bool | int | float | str) else None
    return text[:40] if text else f"of the type {type(value).__name__}"


def _odd(content: Mapping[str, Any]) -> str:
    """What of a checkpoint has a type or a value that none can have; "" for nothing."""
    for key in ("epoch", "step"):
        value = content[key]
        if type(value) is not int or not 0 <= value < 1 << 63:
            return f"{key} is {in_words(value)}, not a whole number from 0 on"
    for key in ("model", "optimizer", "rng", "scheduler", "scaler"):
        value = content[key]
        if not isinstance(value, Mapping) and (value is not None or key in ("model", "optimizer", "rng")):
            return f"{key} is {in_words(value)}, not a dict"
    optimizer = content["optimizer"]
    groups = optimizer.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(each, Mapping) and "lr" in each for each in groups):
        return "optimizer has no groups of parameters with a rate"
    if not isinstance(optimizer.get("state"), Mapping):
        return "optimizer has no state"
    return ""


def restore_checkpoint(
    content: dict[str, Any],
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any = None,
    scaler: Any = None,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Puts the state of `read_checkpoint` into freshly built objects, and sets the random state.

    Returns:
        What the checkpoint has otherwise than the fresh objects, one line each: it is the checkpoint's that holds now.

    Raises:
        CheckpointError: the state is of another model, optimizer or scheduler than these.
    """
    for name, live in (("scheduler", scheduler), ("scaler", scaler)):
        if (content[name] is None) != (live is None):
            has = "has no" if content[name] is None else "has a"
            raise CheckpointError(f"the checkpoint {has} {name}, the run being resumed is set up differently")
    differences, error = attempt(_restore, content, model, optimizer, scheduler, scaler, generator)
    if isinstance(error, CheckpointError):
        raise error
    if differences is None:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"the checkpoint is of another model or optimizer: {reason}") from error
    return differences


def _restore(
    content: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, scaler: Any,
    generator: torch.Generator | None,
) -> list[str]:  # fmt: skip
    differences = _compare_groups(content["optimizer"], optimizer)
    if scheduler is not None:
        differences += _compare("scheduler", _settings(content["scheduler"]), _settings(scheduler.state_dict()))
    unwrapped(model).load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    for name, live in (("scheduler", scheduler), ("scaler", scaler)):
        if live is not None:
            live.load_state_dict(content[name])
    set_rng_state(content["rng"], generator)
    return differences


def _compare_groups(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> list[str]:
    """Differences of hyperparameters; groups that schedulers change are compared by the rate they began with."""
    found: list[str] = []
    for index, (old, new) in enumerate(zip(saved["param_groups"], optimizer.param_groups, strict=False)):
        name = f"optimizer group {group_name(index, new)}" if len(optimizer.param_groups) > 1 else "optimizer"
        rate = "initial_lr" if "initial_lr" in old and "initial_lr" in new else "lr"
        passed_over = {"params", "name", "lr", "initial_lr"}
        found += _compare(
            name,
            {"lr": old[rate], **{key: value for key, value in old.items() if key not in passed_over}},
            {"lr": new[rate], **{key: value for key, value in new.items() if key not in passed_over}},
        )
    return found


def _settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler was made with: plain values that it does not count up, nor takes from the optimizer."""
    counted = ("last_epoch", "base_lrs", "best", "num_bad_epochs", "cooldown_counter", "mode_worse", "verbose")
    return {
        key: value
        for key, value in state.items()
        if not key.startswith("_") and key not in counted and isinstance(value, bool | int | float | str | list | tuple)
    }


def _compare(what: str, saved: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """Differences of two sets of settings.

    Raises:
        CheckpointError: each has settings that the other has not, so that they are of different kinds.
    """
    lost, unknown = sorted(saved.keys() - fresh.keys()), sorted(fresh.keys() - saved.keys())
    if lost and unknown:
        raise CheckpointError(
            f"the checkpoint is of another {what.split()[0]}: it has {lost[0]!r}, the one given has {unknown[0]!r}"
        )
    return [
        f"{what} {key} {saved[key]!r:.60} from the checkpoint (here it was {fresh[key]!r:.60})"
        for key in fresh
        if key in saved and saved[key] != fresh[key] and _listed(saved[key]) != _listed(fresh[key])
    ]


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
