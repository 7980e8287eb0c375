"""What ``losslog run`` was told, and the watch over one process that runs the script.

Main thread. Contract:

- An observer begins when the parts of torch that it needs are there; torch is never imported on the script's behalf.
- The run is closed when the script ends, however that happens, and knows why.
- A run is gone on with where the script has read one of its checkpoints; a script that begins anew gets a new run.
- Where no run can be made the script trains on, unwatched; that is said at once, and again at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from losslog.instrument import signals
from losslog.instrument.listeners import Listener, Told, guarded
from losslog.instrument.passes import EpochFinder
from losslog.journal.folder import clean_name
from losslog.journal.resuming import AUTO, Resumed, resumed
from losslog.runtime import endings
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import say, warn

if TYPE_CHECKING:
    from losslog.instrument.script import ScriptObserver
    from losslog.run import Run

NEEDED: Final = ("torch.nn.modules.module", "torch.optim.optimizer")


class Settings:
    """What the command line said; travels to spawned processes.

    Args:
        run: keyword arguments of `losslog.Run`.
        passes_per_epoch: passes over loaders that make an epoch.
        gradients_every: steps between measurements of gradient shares; 0: none.
        trace: whether to find where losses that are not finite come from.
    """

    def __init__(self, run: Mapping[str, Any], passes_per_epoch: int | None, gradients_every: int = 0,
                 *, trace: bool = False) -> None:  # fmt: skip
        self.run = dict(run)
        self.passes_per_epoch, self.gradients_every, self.trace = passes_per_epoch, gradients_every, trace

    def make(self, about: Mapping[str, Any], **more: Any) -> Run:
        """Make the run; ``more`` replaces what the command line said."""
        from losslog.run import Run

        return Run(**(self.run | more), config=dict(about))


class Watch(Listener):
    """Waits for torch to be imported, then watches what trains with it.

    Args:
        settings: what the command line said.
        program: what runs; "" in a process that another one started, which may have nothing to train.
        elsewhere: tells whether other processes were started, which may train.
    """

    def __init__(self, settings: Settings, program: str = "", elsewhere: Callable[[], bool] = lambda: False) -> None:
        self._settings, self._program, self._elsewhere = settings, program, elsewhere
        self._observer: ScriptObserver | None = None
        self._aside = False
        self._refused = ""
        self._loaded: set[Path | None] = set()  # None: something of which the path is not known
        self._goes_on = False  # whether an optimizer was given a state of an earlier training
        self._bare = False  # whether a file has the state of an optimizer that remembers no step (plain SGD)
        signals.listen(self)
        self.module_loaded("")

    def module_loaded(self, name: str) -> None:
        """Begin when all that an observer needs is there."""
        if self._observer is None and not self._aside and all(each in sys.modules for each in NEEDED):
            guarded(self._begin)

    def _begin(self) -> None:
        from losslog.instrument.script import ScriptObserver

        plan = self._settings.run.get("steps_per_epoch")
        finder = EpochFinder(self._settings.passes_per_epoch, plan)
        settings = self._settings
        self._observer = ScriptObserver(self._make, finder, settings.gradients_every, trace=settings.trace)

    def loaded(self, file: Any, thing: Any) -> None:
        """Remember what the script has read."""
        from losslog.instrument.script import path_of

        path = path_of(file)
        self._loaded.add(None if path is None else Path(path).resolve())
        self._bare = self._bare or _has_bare_state(thing)

    def restored(self, optimizer: Any) -> None:
        """An optimizer goes on, or was given back what it had when it was made, as accelerate does."""
        self._goes_on = self._goes_on or self._bare or bool(attempt(_has_stepped, optimizer)[0])

    def _resume(self) -> dict[str, Any]:
        """What is known of a resume, now that the script has begun to train."""
        asked, name = self._settings.run.get("resume"), self._settings.run.get("name")
        folder, files = Path(self._settings.run["dir"]), {each for each in self._loaded if each is not None}
        found = Resumed() if asked is None else resumed(asked, folder, name, str(name))
        if found.folder is None:
            if self._goes_on or files:
                last, _ = attempt(resumed, f"{clean_name(str(name))}/latest", folder, name, str(name))
                self._tell_new(last or Resumed(), files, asked=asked is not None)
            return {}
        own = found.loaded(files)
        if own is not None:
            return {"resume": found.folder, "resume_epoch": own.epoch, "resume_step": own.step}
        if asked != AUTO or self._goes_on or None in self._loaded:
            warn(
                "the script has loaded %s: it is recorded as going on after the last record of %s; steps that come "
                "again are there twice. To say from where: losslog.attach(..., resume=..., resume_epoch=..., "
                "resume_step=...)",
                "no file that is known as a checkpoint" if self._loaded or self._goes_on else "no checkpoint",
                found.folder,
            )
            return {"resume": found.folder}
        newest = (
            "none was logged that is still there" if found.checkpoint is None else f"the newest is {found.checkpoint}"
        )
        say("the script has loaded no checkpoint of %s: a new run begins (a script has to load one to go on with it: "
            "%s)", found.folder, newest)  # fmt: skip
        return {"resume": None}

    def _tell_new(self, newest: Resumed, files: set[Path], *, asked: bool) -> None:
        """The script goes on with a training, and nobody said with which run; ``asked``: with an unfinished one."""
        own = None if newest.folder is None else newest.loaded(files)
        if own is not None:
            say(
                "the script goes on from %s, a checkpoint of %s%s: a new run begins, at step 0 and epoch 1. To go on "
                "with that run: losslog run --resume %s",
                own.checkpoint,
                own.folder,
                ", which is finished" if own.finished else "",
                own.folder if own.finished else AUTO,
            )
        elif self._goes_on:
            say(
                "the script has loaded an optimizer's state%s: what it trains is a new run all the same, from step 0 "
                "and epoch 1. To go on with an earlier run: losslog run --resume RUN",
                ", and no run of its name is unfinished" if asked else "",
            )

    def _make(self, about: Mapping[str, Any]) -> Run:
        run, error = attempt(lambda: self._settings.make(about, **self._resume()))
        if error is None:
            assert run is not None
            return run
        self._refused = one_line(error)
        warn("nothing is logged: %s", self._refused)
        if self._observer is not None:
            self._observer.detach()
        raise Told from error

    def close(self, error: BaseException | None) -> None:
        """The script has ended, with an exception or without."""
        signals.forget(self)
        if self._refused:
            warn("nothing was logged: %s", self._refused)
        observer, self._observer, self._aside = self._observer, None, True
        status, text = endings.status_of(error)
        unseen = observer is None or (not observer.closed and observer.silence.nothing)
        others = self._refused or endings.any_opened() or self._elsewhere()
        if status == "finished" and self._program and unseen and not others:
            warn("nothing was logged: %s trained nothing (no backward pass, no optimizer step)", self._program)
        if observer is None:
            return
        observer.run_ends(status)
        run = observer.logbook.made
        if run is not None:
            run.end_at_exit(status, text)


def _has_stepped(optimizer: Any) -> bool:
    """Whether an optimizer's state is one of steps: some have one from the start (Adagrad)."""
    return any(each and float(each.get("step", 1)) > 0 for each in optimizer.state.values())


def _has_bare_state(thing: Any, deep: int = 3) -> bool:
    """Whether what was read has the state of an optimizer in it, and that remembers no step."""
    if isinstance(thing, Mapping):
        if "param_groups" in thing:
            return not thing.get("state")
        thing = thing.values()
    elif not isinstance(thing, list | tuple):
        return False
    return deep > 0 and any(_has_bare_state(each, deep - 1) for each in thing)
