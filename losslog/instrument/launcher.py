"""Running a script as ``python SCRIPT`` or ``python -m MODULE`` would, and watching it.

Main thread. Contract:

- The script is ``__main__``, with its own ``sys.argv``, ``sys.path[0]``, exit code and tracebacks; nothing is imported
  on its behalf, and everything of ours is said on stderr.
- Processes that the script spawns are watched like itself.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, ModuleType, TracebackType
from typing import Any, Final, NamedTuple

from losslog.errors import LosslogError
from losslog.instrument import children
from losslog.instrument.watch import Settings, Watch

OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_kept: list[Any] = []  # the modules that were __main__ before


class Program(NamedTuple):
    """What is to become ``__main__``.

    Attributes:
        argument: its ``sys.argv[0]``.
        about: its module's attributes.
        compiled: gives its code, or raises what is wrong with it.
    """

    argument: str
    about: dict[str, Any]
    compiled: Callable[[], CodeType]


def script_program(script: str) -> Program:
    """A Python file; imports look beside it from now on.

    Raises:
        LosslogError: it cannot be read.
    """
    path = os.path.abspath(script)
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise LosslogError(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}") from error
    _put_first(os.path.dirname(os.path.realpath(path)))
    about = {
        "__file__": path,
        "__cached__": None,
        "__package__": None,
        "__spec__": None,
        "__loader__": importlib.machinery.SourceFileLoader("__main__", path),
    }
    return Program(script, about, lambda: compile(source, path, "exec", dont_inherit=True))


def module_program(name: str) -> Program:
    """A module by its dotted name, or the ``__main__`` of a package, looked for from the working directory.

    Packages around it are imported.

    Raises:
        LosslogError: there is none of that name, or it is not Python.
    """
    folder = os.getcwd()
    _put_first(folder)
    try:
        spec = None if name.startswith(".") or name == "__main__" else importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # something that a package around it imports
        spec = None
    except ValueError:  # no name at all
        spec = None
    get_code = getattr(getattr(spec, "loader", None), "get_code", None)
    if spec is None or get_code is None:
        raise LosslogError(f"no module named {name!r} that can be run (looked for from {folder})")
    about = {
        "__file__": spec.origin,
        "__cached__": spec.cached,
        "__package__": spec.parent,
        "__spec__": spec,
        "__loader__": spec.loader,
    }
    return Program(str(spec.origin), about, lambda: get_code(spec.name))


def launch(program: Program, arguments: Sequence[str], settings: Settings) -> int:
    """Run a program.

    Args:
        program: what to run.
        arguments: what it finds in ``sys.argv`` after itself.
        settings: how to log.

    Returns:
        0: it ran to its end.

    Raises:
        BaseException: what it raised.
    """
    sys.argv = [program.argument, *arguments]
    main = _become_main(program.about)
    watch = Watch(settings, program.argument, lambda: bool(children.started))
    children.instrument_spawned(settings)
    try:
        exec(program.compiled(), main.__dict__)
    except SystemExit as error:
        watch.close(error)
        raise
    except BaseException as error:
        sys.excepthook = without_our_frames(sys.excepthook)
        watch.close(error)
        raise
    watch.close(None)
    return 0


def _put_first(folder: str) -> None:
    """Make a folder the first that imports look in, in the place of the one that was ours."""
    if sys.flags.safe_path:
        return
    if "-m losslog" in " ".join(sys.orig_argv[:9]):  # then ours stands last already
        del sys.path[-1]
        sys.path.insert(0, folder)
    else:
        sys.path[0:1] = [folder]


def _become_main(about: Mapping[str, Any]) -> ModuleType:
    main = ModuleType("__main__")
    main.__dict__.update(about, __annotations__={}, __builtins__=sys.modules["builtins"])
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
