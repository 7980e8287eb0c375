"""Checkpoints: everything a run needs to go on as if it had never stopped. Runs on the training thread.

Contract:

- A checkpoint appears whole or not at all: written to a temporary name in the same folder, synced, renamed.
- It holds tensors and plain values only and is loaded with ``weights_only=True``: a file from elsewhere runs no code.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from losslog.control import group_name
from losslog.errors import LosslogError
from losslog.instrument.rng import rng_state, set_rng_state

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
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint {path}") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}") from error
    missing = [key for key in _KEYS if key not in content] if isinstance(content, dict) else list(_KEYS)
    if missing:
        raise CheckpointError(f"{path} is not a checkpoint of losslog: it has no {missing[0]!r}")
    return dict(content)


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
    differences: list[str] = []
    for name, live in (("scheduler", scheduler), ("scaler", scaler)):
        if (content[name] is None) != (live is None):
            has = "has no" if content[name] is None else "has a"
            raise CheckpointError(f"the checkpoint {has} {name}, the run being resumed is set up differently")
    try:
        differences += _compare_groups(content["optimizer"], optimizer)
        if scheduler is not None:
            differences += _compare("scheduler", _settings(content["scheduler"]), _settings(scheduler.state_dict()))
        unwrapped(model).load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the checkpoint is of another model or optimizer: {reason}") from error
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
