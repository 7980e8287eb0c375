"""Our functions, kept out of what torch compiles: after a graph break it would compile whatever Python runs next.

Training thread. Contract:

- Functions that the program calls through us run as they are; what they call is compiled as without us.
- The call of a module is left to torch: it passes on while compiling (`losslog.instrument.calls`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import Any, Final

from losslog.runtime.containment import attempt

OURS: Final = "losslog."
LEFT: Final = "losslog.instrument.calls"
_done: Final[set[str]] = set()


def keep_out() -> None:
    """Mark the functions of all our modules that are imported and not marked yet; without torch it does nothing."""
    skip, _ = attempt(_skipper)
    if skip is None:
        return
    for name, module in sys.modules.copy().items():  # other threads import meanwhile
        if name.startswith(OURS) and name != LEFT and name not in _done:
            _done.add(name)
            for code in _codes(module):
                skip(code)


def _skipper() -> Callable[[CodeType], Any]:
    """What marks code as not to be compiled; torch has had two names for it."""
    frames = sys.modules["torch"]._C._dynamo.eval_frame
    if hasattr(frames, "skip_code"):
        return frames.skip_code  # type: ignore[no-any-return]
    action = frames._FrameAction
    alone = frames._FrameExecStrategy(action.SKIP, action.DEFAULT)
    return lambda code: frames.set_code_exec_strategy(code, alone)


def _codes(module: ModuleType) -> Iterator[CodeType]:
    for found in vars(module).values():
        if getattr(found, "__module__", None) == module.__name__:
            for each in (found, *vars(found).values()) if inspect.isclass(found) else (found,):
                function = each.fget if isinstance(each, property) else getattr(each, "__func__", each)
                yield from _inside(getattr(function, "__code__", None))


def _inside(code: Any) -> Iterator[CodeType]:
    if isinstance(code, CodeType):
        yield code
        for each in code.co_consts:
            yield from _inside(each)
