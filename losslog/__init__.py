"""losslog: see every loss of a multi-loss training run, in every tracker, without hurting the run.

The public names; all else is an implementation detail. Importing this takes milliseconds and never imports torch; what
a run needs is imported by whoever first asks for `Run`, `attach` or `load`: not by a process that only loads data.
"""

import sys

if sys.argv[:1] == ["-m"] and "-m losslog" in " ".join(sys.orig_argv[:9]) and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # python -m losslog: a folder that came with data offers no ``json.py``

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from losslog.errors import BackendUnavailable, LosslogError, NotReady, PluginError, RunLocked, StopTraining
from losslog.hookspecs import hookimpl, hookspec

if TYPE_CHECKING:
    from losslog.instrument.attaching import attach
    from losslog.run import Run, log_training_metrics
    from losslog.tags import batch_series, epoch_series, eval_series, lr_series, scalars
    from losslog.viewing.loading import load

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "LosslogError",
    "NotReady",
    "PluginError",
    "Run",
    "RunLocked",
    "StopTraining",
    "attach",
    "batch_series",
    "epoch_series",
    "eval_series",
    "hookimpl",
    "hookspec",
    "load",
    "log_training_metrics",
    "lr_series",
    "scalars",
]


_WHERE = {"Run": "run", "log_training_metrics": "run", "attach": "instrument.attaching", "load": "viewing.loading"}
_WHERE |= dict.fromkeys(("batch_series", "epoch_series", "eval_series", "lr_series", "scalars"), "tags")

if not TYPE_CHECKING:  # which would take any misspelt name

    def __getattr__(name: str) -> Any:
        """A public name or a module of the package, imported when it is first asked for."""
        where = f"losslog.{_WHERE.get(name, name)}"
        if name.startswith("_") or not name.isidentifier() or find_spec(where) is None:
            raise AttributeError(f"module 'losslog' has no attribute {name!r}")
        module = import_module(where)
        return globals().setdefault(name, getattr(module, name) if name in _WHERE else module)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
