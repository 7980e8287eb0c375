"""Plugins that stand in for a backend in tests: one that remembers, one that fails, one that hangs.

Hooks run on the plugin's lane, everything else on the test's thread. Contract:

- They are ordinary plugins: pass them to ``losslog.Run(plugins=[...])`` or to ``run.register(...)``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from losslog.control import RunHandle
from losslog.hookspecs import hookimpl
from losslog.tags import points_of


class Recorder:
    """Remembers every call; ``on_scalars``, which is made of others, it has as `series`.

    Attributes:
        calls: (hook, arguments) in order, ``run`` left out.
        flushes: how often it was flushed.
        near: True, as for every object that is made in the training process.
    """

    near = True
    flush_every = 0.0

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.flushes = 0
        self._news = threading.Condition()

    def wait_for(self, hook: str, times: int = 1, timeout: float = 10.0) -> bool:
        """Wait until a hook was called so often; a run does not wait for a plugin whose backend is away.

        Returns:
            Whether it was, in time.
        """
        with self._news:
            return self._news.wait_for(lambda: len(self.of(hook)) >= times, timeout)

    def of(self, hook: str) -> list[dict[str, Any]]:
        """The arguments of every call of one hook."""
        return [arguments for name, arguments in self.calls if name == hook]

    @property
    def hooks(self) -> list[str]:
        """The names of the hooks called, in order."""
        return [name for name, _ in self.calls]

    @property
    def series(self) -> dict[str, list[tuple[int, float]]]:
        """The points a backend would have of this: ``{tag: [(x, value), ...]}``."""
        found: dict[str, list[tuple[int, float]]] = {}
        for hook, data in self.calls:
            if (points := points_of(hook, data)) is not None:
                for tag, value in points.series.items():
                    found.setdefault(tag, []).append((points.x, value))
        return found

    def take(self, hook: str, arguments: dict[str, Any]) -> None:
        """Called for every hook except ``on_flush``; subclasses add to it."""
        with self._news:
            self.calls.append((hook, arguments))
            self._news.notify_all()

    @hookimpl
    def on_run_start(
        self,
        name: str,
        config: Mapping[str, Any],
        epochs: int | None,
        steps_per_epoch: int | None,
        options: Mapping[str, Any],
        resumed: bool,
        seq: int,
        time: float,
    ) -> None:
        """Remember the call."""
        self.take("on_run_start", {"name": name, "config": config, "epochs": epochs, "steps_per_epoch": steps_per_epoch,
                                   "options": options, "resumed": resumed, "seq": seq, "time": time})  # fmt: skip

    @hookimpl
    def on_batch_losses(
        self,
        step: int,
        epoch: int,
        losses: Any,
        total: float,
        lr: Any,
        batch_size: int | None,
        ranks: int | None,
        n: int | None,
        seq: int,
        time: float,
    ) -> None:
        """Remember the call."""
        self.take("on_batch_losses", {"step": step, "epoch": epoch, "losses": losses, "total": total, "lr": lr,
                                      "batch_size": batch_size, "ranks": ranks, "n": n,
                                      "seq": seq, "time": time})  # fmt: skip

    @hookimpl
    def on_eval(
        self, epoch: int, step: int | None, split: str, metrics: Mapping[str, Any], seq: int, time: float
    ) -> None:
        """Remember the call."""
        self.take(
            "on_eval", {"epoch": epoch, "step": step, "split": split, "metrics": metrics, "seq": seq, "time": time}
        )

    @hookimpl
    def on_images(
        self,
        epoch: int,
        step: int | None,
        split: str,
        name: str,
        images: Any,
        folder: str | None,
        seq: int,
        time: float,
    ) -> None:
        """Remember the call."""
        self.take("on_images", {"epoch": epoch, "step": step, "split": split, "name": name, "images": images,
                                "folder": folder, "seq": seq, "time": time})  # fmt: skip

    @hookimpl
    def on_metrics(
        self, step: int | None, epoch: int | None, metrics: Mapping[str, float], seq: int, time: float
    ) -> None:
        """Remember the call."""
        self.take("on_metrics", {"step": step, "epoch": epoch, "metrics": metrics, "seq": seq, "time": time})

    @hookimpl
    def on_epoch_end(
        self,
        epoch: int,
        epochs: int | None,
        step: int | None,
        losses: Any,
        total: float | None,
        val_loss: Any,
        lr: Any,
        duration: float | None,
        dropped: int | None,
        hardest: Any,
        seq: int,
        time: float,
    ) -> None:
        """Remember the call."""
        self.take("on_epoch_end", {"epoch": epoch, "epochs": epochs, "step": step, "losses": losses, "total": total,
                                   "val_loss": val_loss, "lr": lr, "duration": duration, "dropped": dropped,
                                   "hardest": hardest, "seq": seq, "time": time})  # fmt: skip

    @hookimpl
    def on_checkpoint(self, epoch: int | None, step: int | None, path: str, seq: int, time: float) -> None:
        """Remember the call."""
        self.take("on_checkpoint", {"epoch": epoch, "step": step, "path": path, "seq": seq, "time": time})

    @hookimpl
    def on_alert(
        self,
        level: str,
        title: str,
        text: str,
        source: str,
        component: str | None,
        step: int | None,
        epoch: int | None,
        key: str,
        seq: int,
        time: float,
    ) -> None:
        """Remember the call."""
        self.take("on_alert", {"level": level, "title": title, "text": text, "source": source, "component": component,
                               "step": step, "epoch": epoch, "key": key, "seq": seq, "time": time})  # fmt: skip

    @hookimpl
    def on_resume(self, epoch: int | None, step: int | None, seq: int, time: float) -> None:
        """Remember the call."""
        self.take("on_resume", {"epoch": epoch, "step": step, "seq": seq, "time": time})

    @hookimpl
    def on_run_end(self, status: str, error: str | None, seq: int, time: float) -> None:
        """Remember the call."""
        self.take("on_run_end", {"status": status, "error": error, "seq": seq, "time": time})

    @hookimpl
    def on_flush(self, run: RunHandle) -> None:
        """Count it."""
        self.flushes += 1


class Flaky(Recorder):
    """A recorder whose backend is away for its first calls.

    Args:
        fails: how many calls raise.
        error: what they raise; `losslog.BackendUnavailable` and ``ConnectionError`` mean "not now".
        hook: which hook raises.
    """

    def __init__(self, fails: int = 1, error: BaseException | None = None, hook: str = "on_epoch_end") -> None:
        super().__init__()
        self.fails, self.hook = fails, hook
        self.error = ConnectionError("the backend is away") if error is None else error

    def take(self, hook: str, arguments: dict[str, Any]) -> None:
        """Raise, or remember the call."""
        self._maybe_fail(hook)
        super().take(hook, arguments)

    @hookimpl
    def on_flush(self, run: RunHandle) -> None:
        """Raise, or count it."""
        self._maybe_fail("on_flush")
        self.flushes += 1

    def _maybe_fail(self, hook: str) -> None:
        if hook == self.hook and self.fails > 0:
            self.fails -= 1
            raise self.error


class Hanging(Recorder):
    """A recorder that hangs in one hook until it is released.

    Args:
        hook: which hook hangs.
    """

    def __init__(self, hook: str = "on_epoch_end") -> None:
        super().__init__()
        self.hook = hook
        self.hangs = threading.Event()
        self._released = threading.Event()

    def release(self) -> None:
        """Let it go on."""
        self._released.set()

    def take(self, hook: str, arguments: dict[str, Any]) -> None:
        """Hang, then remember the call."""
        if hook == self.hook:
            self.hangs.set()
            self._released.wait()
        super().take(hook, arguments)
