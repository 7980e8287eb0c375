"""What ``losslog run`` was told, and the watch over one process that runs the script.

Main thread. Contract:

- An observer begins when the parts of torch that it needs are there; torch is never imported on the script's behalf.
- The run is closed when the script ends, however that happens, and knows why.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from losslog.instrument import signals
from losslog.instrument.listeners import Listener, guarded
from losslog.instrument.passes import EpochFinder
from losslog.runtime import endings

if TYPE_CHECKING:
    from losslog.instrument.script import ScriptObserver
    from losslog.run import Run

NEEDED: Final = ("torch.nn.modules.module", "torch.optim.optimizer")


class Settings:
    """What the command line said; travels to spawned processes.

    Args:
        run: keyword arguments of `losslog.Run`.
        passes_per_epoch: passes over loaders that make an epoch.
    """

    def __init__(self, run: Mapping[str, Any], passes_per_epoch: int | None) -> None:
        self.run = dict(run)
        self.passes_per_epoch = passes_per_epoch

    def make(self, about: Mapping[str, Any]) -> Run:
        """Make the run."""
        from losslog.run import Run

        return Run(**self.run, config=dict(about))


class Watch(Listener):
    """Waits for torch to be imported, then watches what trains with it.

    Args:
        settings: what the command line said.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._observer: ScriptObserver | None = None
        self._aside = False
        signals.listen(self)
        self.module_loaded("")

    def module_loaded(self, name: str) -> None:
        """Begin when all that an observer needs is there."""
        if self._observer is None and not self._aside and all(each in sys.modules for each in NEEDED):
            guarded(self._begin)

    def _begin(self) -> None:
        from losslog.instrument.script import ScriptObserver

        plan = self._settings.run.get("steps_per_epoch")
        self._observer = ScriptObserver(self._settings.make, EpochFinder(self._settings.passes_per_epoch, plan))

    def close(self, error: BaseException | None) -> None:
        """The script has ended, with an exception or without."""
        signals.forget(self)
        observer, self._observer, self._aside = self._observer, None, True
        if observer is None:
            return
        status, text = endings.status_of(error)
        observer.run_ends(status)
        run = observer.logbook.made
        if run is not None:
            run.end_at_exit(status, text)
