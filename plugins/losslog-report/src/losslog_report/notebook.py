"""The near plugin for notebooks: a chart that is renewed once an epoch, and a line of progress.

Runs on the plugin's lane, in the notebook's kernel. Contract:

- One output of each kind, replaced in place: a saved notebook holds the last chart alone.
- A batch costs a look at the clock; the line of progress is renewed once a second at most, the chart once an epoch.
- Without a notebook it is not ready; IPython is used where it is, and never imported.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from losslog import NotReady, hookimpl, scalars
from losslog_report.chart import chart

REDRAW: Final = 1.0  # seconds
KEPT: Final = 2000  # epochs


class NotebookPlugin:
    """Draws the run below the cell that trains it.

    Args:
        progress: whether to show a line of progress, too.

    Raises:
        losslog.NotReady: this is no notebook.
        TypeError: an option is not what it may be.
    """

    near = True

    def __init__(self, progress: bool = True) -> None:
        if not isinstance(progress, bool):
            raise TypeError(f"notebook option progress={progress!r}: pass True or False")
        if not in_notebook():
            raise NotReady("this is not a Jupyter notebook")
        self._progress = progress
        self._curves: dict[str, list[tuple[float, float]]] = {}
        self._val: dict[str, list[tuple[float, float]]] = {}
        self._marked: dict[str, str] = {}
        self._scores: dict[str, float] = {}
        self._head = ""
        self._epochs: int | None = None
        self._steps: int | None = None
        self._first = 0
        self._epoch: int | None = None
        self._due = 0.0
        self._chart: Any = None
        self._line: Any = None

    @hookimpl
    def on_run_start(self, name: str, epochs: int | None, steps_per_epoch: int | None, run: Any) -> None:
        """Learn the plan."""
        self._head = f"{name} {run.id}"
        self._epochs, self._steps = epochs, steps_per_epoch

    @hookimpl
    def on_batch_losses(self, step: int, epoch: int, losses: Any, total: Any) -> None:
        """Renew the line of progress, if it is time to."""
        if epoch != self._epoch:
            self._epoch, self._first = epoch, step
        if self._progress and monotonic() >= self._due:
            self._due = monotonic() + REDRAW
            values = scalars("x", losses, total)
            of = f"/{self._epochs}" if self._epochs else ""
            steps = f"/{self._steps}" if self._steps else ""
            value = values.get("x_total", values.get("x", 0.0))
            self._show_line(f"Epoch {epoch}{of}, step {step - self._first + 1}{steps}, loss {value:.4g}")

    @hookimpl
    def on_eval(self, split: str, metrics: Mapping[str, Any]) -> None:
        """Remember the average precisions."""
        for kind, scores in metrics.items():
            if isinstance(scores, Mapping) and "AP" in scores and split == "val":
                self._scores[f"{kind} AP"] = float(scores["AP"])
            elif not isinstance(scores, Mapping):
                self._scores[str(kind)] = float(scores)

    @hookimpl
    def on_alert(self, title: str, component: str | None) -> None:
        """Mark the component."""
        if component is not None:
            self._marked[component] = title

    @hookimpl
    def on_epoch_end(self, epoch: int, losses: Any, total: Any, val_loss: Any) -> None:
        """Renew the chart."""
        if losses is not None:
            self._add(self._curves, epoch, losses, total)
        if val_loss is not None:
            self._add(self._val, epoch, val_loss, None)
        self._draw(f"epoch {epoch}" + (f" of {self._epochs}" if self._epochs else ""))

    @hookimpl
    def on_run_end(self, status: str) -> None:
        """Say how it ended."""
        self._draw(status)
        if self._line is not None:
            self._show_line(status)

    def _add(self, curves: dict[str, list[tuple[float, float]]], epoch: int, losses: Any, total: Any) -> None:
        values = scalars("x", losses, total)
        alone = "total" if "total" in self._curves else "loss"  # one number beside components is their total
        for name in (*losses, "total") if isinstance(losses, Mapping) else (alone,):
            value = values.get(f"x_{name}", values.get("x"))
            kept = curves.setdefault(str(name), [])
            kept.append((epoch, float(value or 0.0)))
            if len(kept) > KEPT:
                del kept[1:-1:2]

    def _draw(self, where: str) -> None:
        scores = "".join(f" · {html.escape(name)} {value:.3f}" for name, value in list(self._scores.items())[:6])
        head = f"<div><b>{html.escape(self._head)}</b> · {html.escape(where)}{scores}</div>"
        self._chart = _show(self._chart, head + chart(self._curves, self._val, self._marked), self._head)

    def _show_line(self, text: str) -> None:
        self._line = _show(self._line, f"<small>{html.escape(text)}</small>", text)


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _show(handle: Any, markup: str, text: str) -> Any:
    """Show it, in place of what the handle showed before."""
    display = sys.modules["IPython"].display
    data = {"text/html": markup, "text/plain": text}
    if handle is None:
        return display.display(data, raw=True, display_id=True)
    handle.update(data, raw=True)
    return handle
