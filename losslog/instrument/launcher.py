"""Running a script as ``python SCRIPT`` would, and watching it.

Main thread. Contract:

- The script is ``__main__``, with its own ``sys.argv``, ``sys.path[0]``, exit code and tracebacks; nothing is imported
  on its behalf, and everything of ours is said on stderr.
- The run is closed when the script ends, however that happens, and knows why.
- Processes that the script spawns are watched like itself.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from losslog import endings
from losslog.instrument import children, signals
from losslog.instrument.passes import EpochFinder

if TYPE_CHECKING:
    from losslog.instrument.script import ScriptObserver
    from losslog.run import Run

OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
NEEDED: Final = ("torch.nn.modules.module", "torch.optim.optimizer")
_kept: list[Any] = []  # the modules that were __main__ before


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


class Watch(signals.Listener):
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
            signals.guarded(self._begin)

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


def launch(script: str, arguments: Sequence[str], settings: Settings) -> int:
    """Run a script.

    Args:
        script: path of a Python file.
        arguments: what the script finds in ``sys.argv`` after itself.
        settings: how to log.

    Returns:
        0 where the script ran to its end, 2 where it cannot be read.

    Raises:
        BaseException: what the script raised.
    """
    path = os.path.abspath(script)
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        sys.stderr.write(f"losslog run: can't open file {path!r}: [Errno {error.errno}] {error.strerror}\n")
        return 2
    sys.argv = [script, *arguments]
    if not sys.flags.safe_path:
        sys.path[0:1] = [os.path.dirname(os.path.realpath(path))]
    main = _become_main(path)
    watch = Watch(settings)
    children.instrument_spawned(settings)
    try:
        exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)
    except SystemExit as error:
        watch.close(error)
        raise
    except BaseException as error:
        sys.excepthook = without_our_frames(sys.excepthook)
        watch.close(error)
        raise
    watch.close(None)
    return 0


def _become_main(path: str) -> ModuleType:
    main = ModuleType("__main__")
    main.__dict__.update(
        __file__=path,
        __cached__=None,
        __package__=None,
        __spec__=None,
        __loader__=importlib.machinery.SourceFileLoader("__main__", path),
        __annotations__={},
        __builtins__=sys.modules["builtins"],
    )
    _kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = main
    return main


Excepthook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]


def without_our_frames(show: Excepthook) -> Excepthook:
    """An excepthook that shows the traceback plain ``python`` would show."""

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        _clean(error, set(), top=True)
        return show(kind, error, error.__traceback__)

    return excepthook


def _clean(error: BaseException, seen: set[int], *, top: bool) -> None:
    if id(error) in seen:
        return
    seen.add(id(error))
    error.__traceback__ = _strip(error.__traceback__, top=top)
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        if isinstance(other, BaseException):
            _clean(other, seen, top=False)


def _strip(trace: TracebackType | None, *, top: bool) -> TracebackType | None:
    """The frames from the script on, without ours; those of an error that was caught on the way begin anywhere."""
    kept = []
    began = not top
    for each in _frames(trace):
        began = began or _is_main(each)
        if began and not each.tb_frame.f_code.co_filename.startswith(OURS):
            kept.append(each)
    result: TracebackType | None = None
    for each in reversed(kept):
        result = TracebackType(result, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return result


def _frames(trace: TracebackType | None) -> list[TracebackType]:
    found = []
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found


def _is_main(trace: TracebackType) -> bool:
    return trace.tb_frame.f_globals is sys.modules["__main__"].__dict__
