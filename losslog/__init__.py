"""losslog: see every loss of a multi-loss training run, in every tracker, without hurting the run.

The public names; all else is an implementation detail. Importing this takes milliseconds and never imports torch.
"""

import sys

if sys.argv[:1] == ["-m"] and "-m losslog" in " ".join(sys.orig_argv[:9]) and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # python -m losslog: a folder that came with data offers no ``json.py``

from losslog.errors import BackendUnavailable, LosslogError, NotReady, PluginError, RunLocked, StopTraining
from losslog.hookspecs import hookimpl, hookspec
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


def _shown(run: Run) -> str | None:
    """The run's report, where a notebook shows the run."""
    from losslog.viewing.notebook import inline

    return inline(run.dir)


Run._repr_html_ = _shown  # type: ignore[attr-defined]  # the core does not know of pages
