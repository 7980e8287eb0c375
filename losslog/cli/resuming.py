"""``losslog train --resume``: which of a run's settings hold now. Runs on the main thread, before a run is touched.

Contract:

- An option given again is used, or refused with the reason; one that is not given is what the run had.
- What was restored and what was overridden is said before the first step.
- What the run folder has is taken if it can be used, and refused in a line else: see `losslog.cli.restored`.
- A checkpoint holds rates, weight decay and random states of its own: where an option overrides them, it is they that
  are changed, before the engine restores them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from losslog.cli.arguments import UsageError
from losslog.cli.delivering import start_of
from losslog.cli.restored import check_states, unusable
from losslog.journal.resuming import AUTO, resumed
from losslog.runtime.containment import printable

NAME: Final = "maskrcnn"  # of a run that is given none
# Options that are not the run's but this call's.
_OWN: Final = frozenset(
    {
        "resume",
        "dir",
        "name",
        "verbose",
        "command",
        "command_name",
        "check",
        "sheet",
        "plugins",
        "option",
        "workers",
        "device",
        "given",
        "settings",
    }
)
_FIXED: Final = {
    "backbone": "the checkpoint has the weights of the other one",
    "optimizer": "the checkpoint has the state of the other one",
    "weights": "the checkpoint has the weights",
}
_PATHS: Final = ("data", "weights")
_NO_PATHS: Final = ("imagenet", "coco")
_SHOWN: Final = 5  # names of classes in a line
_TOLD: Final = ("optimizer", "lr", "schedule", "epochs", "batch_size", "image_size", "data", "seed")


class Given(argparse.Action):
    """What argparse does for an option anyhow; besides, the namespace's ``given`` gets its name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Store the value, and that it was given."""
        setattr(namespace, self.dest, self.const if self.nargs == 0 else values)
        namespace.given = {*getattr(namespace, "given", ()), self.dest}


class GivenFlag(Given):
    """The same for a flag."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nargs=0, const=True, **{"default": False, **kwargs})


class Resumed:
    """A run to go on with, or none.

    Args:
        args: of ``losslog train``; what is not given there becomes what the run had.

    Attributes:
        run: further arguments for `losslog.Run`.
        checkpoint: the content of its newest one.

    Raises:
        UsageError: an option that cannot be changed any more, or no epoch is left.
        JournalError: there is no such run.
        CheckpointError: it has no checkpoint that can be read.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.run: dict[str, Any] = {}
        self.checkpoint: dict[str, Any] | None = None
        self._changed: dict[str, tuple[Any, Any]] = {}
        self._lines: list[str] = []
        self._config: Mapping[str, Any] = {}
        self._cwd: str | None = None
        self._path = Path()
        if args.resume is None:
            return
        from losslog.engine import find_checkpoint, read_checkpoint
        from losslog.engine.checkpoint import CheckpointError
        from losslog.engine.distributed import from_main

        meant = resumed(args.resume, Path(args.dir), args.name, args.name or NAME).folder
        folder = from_main(meant)  # one for all ranks
        if folder is None:
            return
        try:
            self._path = find_checkpoint(folder)
            content = read_checkpoint(self._path)
        except CheckpointError:
            if args.resume != AUTO:
                raise
            return  # it was killed before its first
        start = start_of(folder)
        config, origin = start.get("config"), start.get("origin")
        cwd = origin.get("cwd") if isinstance(origin, dict) else None
        self._cwd = cwd if isinstance(cwd, str) and "\0" not in cwd else None
        self._config = config if isinstance(config, dict) else {}
        epoch, step = content["epoch"], content["step"]
        planned = args.epochs if "epochs" in args.given else self._config.get("epochs", args.epochs)
        if args.resume == AUTO and isinstance(planned, int) and epoch >= planned:
            return
        self._settle(args, folder)
        self.checkpoint = content
        if epoch >= args.epochs:
            done = f"all {epoch} epochs are done" if epoch == args.epochs else f"it has done {epoch} epochs"
            raise UsageError(f"--resume {args.resume}: {done}; ask for more with --epochs")
        self.run = {"resume": folder, "resume_epoch": epoch, "resume_step": step - 1}
        restored = ", ".join(f"{_words(key)} {getattr(args, key)}" for key in _TOLD if key not in self._changed)
        changes = ", ".join(f"{_words(key)} {was!s:.200} -> {now}" for key, (was, now) in self._changed.items())
        self._lines = [f"{folder.name} goes on after epoch {epoch}, from {self._path.name}, with {restored}"]
        self._lines += [f"overridden: {changes}"] if changes else []

    def _settle(self, args: argparse.Namespace, folder: Path) -> None:
        for key, now in list(vars(args).items()):
            if key in _OWN or key not in self._config:
                continue
            was, why = self._placed(key, self._config[key]), unusable(args.settings[key], self._config[key])
            if key not in args.given:
                if why:
                    raise UsageError(f"{folder}: its {_words(key)} is {was!r:.60}: {why}; say --{_words(key, '-')}")
                setattr(args, key, was)
            elif not (now == was or (key in _PATHS and not why and was and _same_file(now, was))):
                if key in _FIXED and not why:
                    raise UsageError(f"--{_words(key, '-')} {now}: the run has {was}, and {_FIXED[key]}")
                self._changed[key] = (was, now)

    def _placed(self, key: str, was: Any) -> Any:
        """A path as it is called from here: what was relative was so to where the run was begun."""
        if key not in _PATHS or not isinstance(was, str) or was in _NO_PATHS or self._cwd is None:
            return was
        return was if os.path.realpath(self._cwd) == os.path.realpath(os.curdir) else os.path.join(self._cwd, was)

    def check_classes(self, names: list[str]) -> None:
        """Refuses data with other classes: the model's outputs would change their meaning."""
        known = self._config.get("classes") if self.checkpoint is not None else None
        if not isinstance(known, list) or known == names:
            return
        theirs = [str(each) for each in known]
        if max(len(names), len(theirs)) <= _SHOWN:
            raise UsageError(f"--data: its classes are {', '.join(names)}, those of the run {', '.join(theirs)}")
        place = next(place for place, pair in enumerate(zip_longest(names, theirs)) if pair[0] != pair[1])
        here, there = (each[place][:40] if place < len(each) else "missing" for each in (names, theirs))
        raise UsageError(
            f"--data: its {len(names)} classes are not the {len(theirs)} of the run: "
            f"the first that differs, number {place + 1}, is {here} here and {there} there"
        )

    def weights(self, said: str | None) -> str | None:
        """The weights that the model is made with: a resumed one gets those of the checkpoint, from no other file."""
        return said if self.checkpoint is None or said in _NO_PATHS else None

    def override(self, model: Any, optimizer: Any, scheduler: Any, scaler: Any, factor: Any) -> None:
        """Puts what was given again into the checkpoint, loads it, and says what holds.

        Args:
            model: made from the arguments as they hold now.
            optimizer: likewise.
            scheduler: likewise.
            scaler: likewise, or None.
            factor: the schedule's factor by step.

        Raises:
            UsageError: the checkpoint cannot be gone on with.
        """
        if self.checkpoint is None:
            return
        from losslog.engine import restore_checkpoint
        from losslog.engine.checkpoint import CheckpointError

        try:
            check_states(self.checkpoint, optimizer, (("scheduler", scheduler), ("scaler", scaler)))
        except UsageError as error:
            raise UsageError(f"{self._path}: {error}") from error
        saved, schedule = self.checkpoint["optimizer"]["param_groups"], self.checkpoint["scheduler"]
        if len(saved) == len(optimizer.param_groups) and schedule is not None:
            self._override_rates(saved, schedule, optimizer, factor)
        if "seed" in self._changed:
            from losslog.engine import rng_state

            self.checkpoint["rng"] = rng_state()  # seeded with it a moment ago
        try:  # now, while nothing is begun; the engine does it once more
            differences = restore_checkpoint(
                self.checkpoint, model=model, optimizer=optimizer, scheduler=scheduler, scaler=scaler
            )
        except CheckpointError as error:
            raise UsageError(f"{self._path}: {error}") from error
        self._lines += [f"resumed after epoch {self.checkpoint['epoch']}: {line}" for line in differences]
        for line in self._lines:
            print(f"losslog train: {printable(line)}", file=sys.stderr)

    def _override_rates(self, saved: list[Any], schedule: dict[str, Any], optimizer: Any, factor: Any) -> None:
        if {"lr", "head_lr_multiplier"} & self._changed.keys():
            for group, live in zip(saved, optimizer.param_groups, strict=True):
                group["initial_lr"] = live["initial_lr"]
            schedule["base_lrs"] = [group["initial_lr"] for group in saved]
        if "weight_decay" in self._changed:
            for group, live in zip(saved, optimizer.param_groups, strict=True):
                group["weight_decay"] = live["weight_decay"]
        if {"lr", "head_lr_multiplier", "schedule", "epochs", "batch_size", "steps_per_epoch"} & self._changed.keys():
            now = factor(schedule["last_epoch"])
            for group, base in zip(saved, schedule["base_lrs"], strict=True):
                group["lr"] = base * now
            schedule["_last_lr"] = [group["lr"] for group in saved]


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _words(key: str, between: str = " ") -> str:
    return key.replace("_", between)
