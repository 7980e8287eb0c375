"""The options a user may give, checked where they are given.

Runs in the training process and again in the follower. Contract:

- Nothing is imported from wandb: the names of its settings are read from its source.
- What losslog itself decides (run id, folder, resuming) is refused with the reason.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from losslog import NotReady

MODES: Final = ("online", "offline", "disabled")
OWN: Final = ("project", "entity", "name", "group", "tags", "mode", "reuse", "checkpoints")
OURS: Final = {
    "run_id": "the run keeps losslog's id, so that it can be resumed",
    "resume": "losslog resumes the run by its id",
    "resume_from": "losslog resumes the run by its id",
    "fork_from": "losslog resumes the run by its id",
    "reinit": "losslog always opens a run of its own; reuse=True writes into yours",
    "root_dir": "the files lie in the run folder, where losslog looks for what was delivered",
    "x_skip_transaction_log": "the local file is what losslog reads to know what was delivered",
}


def vendor_folder() -> Path:
    """Where the wandb package lies.

    Raises:
        NotReady: it is not installed.
    """
    spec = importlib.util.find_spec("wandb")
    if spec is None or spec.origin is None:  # a folder ./wandb, which wandb itself makes, is found as a namespace
        raise NotReady("wandb is not installed: pip install wandb")
    return Path(spec.origin).parent


def check_mode(mode: str | None) -> None:
    """Raises ValueError where ``mode`` is not one that exists."""
    if mode is not None and mode not in MODES:
        raise ValueError(f"wandb option mode={mode!r}: use one of {', '.join(MODES)}, or leave it out")


def check_settings(settings: Mapping[str, Any], folder: Path) -> None:
    """Check names of ``wandb.Settings`` fields.

    Args:
        settings: what the user gave.
        folder: the wandb package.

    Raises:
        TypeError: no such option.
        ValueError: losslog decides this one.
    """
    if not settings:
        return
    known = _fields(folder)
    for name in settings:
        if name in OURS:
            raise ValueError(f"wandb option {name!r} cannot be set: {OURS[name]}")
        if known and name not in known:
            near = difflib.get_close_matches(name, [*OWN, *known], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(OWN)} or a field of wandb.Settings"
            raise TypeError(f"wandb has no option {name!r}: {hint}")


def _fields(folder: Path) -> set[str]:
    """The fields of ``wandb.Settings``; empty where the source is not where it is expected."""
    source = folder / "sdk" / "wandb_settings.py"
    if not source.is_file():
        return set()
    classes = [node for node in ast.parse(source.read_text("utf-8")).body if isinstance(node, ast.ClassDef)]
    body = next((node.body for node in classes if node.name == "Settings"), [])
    return {node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
