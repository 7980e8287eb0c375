"""A run as Python sees it afterwards: `losslog.load`.

Any thread; reads only. Contract:

- It reads the journal when it is asked, so a live run shows what it has come to; what a resume superseded is left out.
- pandas is imported by `LoadedRun.frame` alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from losslog.errors import LosslogError
from losslog.history import points, records, series
from losslog.journal.folder import find
from losslog.journal.index import index_of
from losslog.runtime.notices import did_you_mean

if TYPE_CHECKING:
    import pandas

STEP = "batch/"
AXES = ("step", "epoch")


def load(run: str | os.PathLike[str] = "latest", dir: str | os.PathLike[str] | None = None) -> LoadedRun:
    """Open a run to look at it; a live one, too.

    Args:
        run: a run folder, a run id or its beginning, a name (its newest run), ``NAME/ID``, ``latest`` or
            ``NAME/latest``.
        dir: where runs lie; None is ``LOSSLOG_DIR``, or ``runs``.

    Returns:
        What it came to so far.

    Raises:
        JournalError: there is no such run, or there are several.
    """
    return LoadedRun(find(run, dir if dir is not None else os.environ.get("LOSSLOG_DIR") or "runs"))


class LoadedRun:
    """A run, read-only.

    Args:
        folder: the run folder.

    Attributes:
        folder: the run folder.
        id: its id.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name

    def _start(self) -> dict[str, Any]:
        return index_of(self.folder).start(0)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._start().get("name") or self.folder.parent.name)

    @property
    def config(self) -> dict[str, Any]:
        """Its config, secrets redacted."""
        return dict(self._start().get("config") or {})

    @property
    def origin(self) -> dict[str, Any]:
        """Command line, script, commit, versions, host."""
        return dict(self._start().get("origin") or {})

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``stopped``, ``failed`` or ``crashed``."""
        from losslog.journal.file import state_of

        return str(state_of(self.folder)["status"])

    @property
    def best(self) -> dict[str, tuple[float, int]]:
        """The highest of each number of the evaluations, and its epoch: ``{"mAP/bbox_AP": (0.61, 9)}``."""
        values: dict[str, dict[int, float]] = {}
        for record in records(self.folder, hooks=("on_eval",)):
            for tag, x, value in points(record):
                values.setdefault(tag, {})[x] = value
        found: dict[str, tuple[float, int]] = {}
        for tag, by_epoch in values.items():
            if known := {x: value for x, value in by_epoch.items() if value == value}:
                x = max(known, key=known.__getitem__)
                found[tag] = (known[x], x)
        return found

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """Its alerts, in order: ``level``, ``title``, ``text``, ``component``, ``step``, ``epoch``..."""
        return [dict(each.data) for each in records(self.folder, hooks=("on_alert",))]

    def losses(self, component: str = "total", by: Literal["step", "epoch"] = "step") -> dict[int, float]:
        """The training loss of a component.

        Args:
            component: its name, or ``total``.
            by: what it is given by: steps, or the means of epochs.

        Returns:
            Values by step or epoch.

        Raises:
            KeyError: there is no such component; the message names those there are.
            ValueError: ``by`` is neither.
        """
        _check(by)
        prefix = "batch/train" if by == "step" else "loss/train"
        every = series(self.folder, batches=by == "step")
        found = {tag: values for tag, values in every.items() if tag.startswith(prefix)}
        names = {tag.removeprefix(prefix).removeprefix("_") or "total": values for tag, values in found.items()}
        if component not in names:
            raise KeyError(f"no component {component!r}{did_you_mean(component, names)}; there are {', '.join(names)}")
        return names[component]

    def frame(self, by: Literal["step", "epoch"] = "epoch") -> pandas.DataFrame:
        """Every series as a column of a `pandas.DataFrame`.

        Args:
            by: the index: epochs (means, validation, evaluations, learning rates), or steps (batches).

        Raises:
            LosslogError: pandas is not installed.
            ValueError: ``by`` is neither.
        """
        _check(by)
        try:
            import pandas
        except ImportError as error:
            raise LosslogError("frame() needs pandas: pip install pandas") from error
        every = series(self.folder, batches=by == "step")
        found = {tag: each for tag, each in every.items() if tag.startswith(STEP) == (by == "step")}
        return pandas.DataFrame(found).sort_index().rename_axis(by)

    def _repr_html_(self) -> str | None:
        """The run's report, where a notebook shows it."""
        from losslog.viewing.notebook import inline  # a page takes more to import than all of losslog

        return inline(self.folder)

    def __repr__(self) -> str:
        return f"<LoadedRun {self.name} {self.id} {self.status}>"


def _check(by: object) -> None:
    if by not in AXES:
        raise ValueError(f"by={by!r}{did_you_mean(str(by), AXES, 0.6)}; there is {' and '.join(AXES)}")
