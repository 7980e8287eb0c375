"""A run, as a training loop sees it.

Public methods run on the training thread. Contract:

- After the constructor returned, nothing a plugin, a disk or a backend does can raise into training, stall it, or
  deadlock its exit. Wrong types from the caller do raise, at once, naming the key.
- `log_batch` takes a snapshot and appends it to a bounded queue: microseconds, no GPU sync, no I/O, no backend.
- `close` is bounded by its timeout; what is undelivered then stays in the journal, and the report says so.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from threading import get_ident
from types import SimpleNamespace
from typing import Any, Final, Literal, TypeVar

from losslog.control import Requests, RunHandle, Watcher, alert_data, lr_data, scale_all
from losslog.delivery.caller import free_name, hooks_of, name_of
from losslog.delivery.delivery import Delivery
from losslog.delivery.discovery import Plugin, select
from losslog.delivery.inline import Inline
from losslog.delivery.report import cost_of, end_report, start_line
from losslog.delivery.trust import into_journal
from losslog.hookspecs import ARGUMENTS, hookimpl
from losslog.journal import folder
from losslog.journal.cursors import BEGINNING, Position
from losslog.journal.file import Writer
from losslog.journal.folder import absolute
from losslog.journal.metrics import numbers
from losslog.journal.origin import origin
from losslog.journal.records import plain, whole
from losslog.journal.redaction import redact
from losslog.journal.resuming import AUTO, Resumed, resumed
from losslog.journal.shapes import LARGEST
from losslog.journal.tail import Tail
from losslog.ranks.joining import Joiner
from losslog.ranks.leases import Leases
from losslog.ranks.store import Store, alone, place
from losslog.ranks.tree import Tree
from losslog.recording.drain import Drain
from losslog.recording.intake import Intake, Queue
from losslog.recording.items import Batch, Event, Item
from losslog.recording.nowhere import Nowhere
from losslog.recording.recorder import Recorder
from losslog.recording.sender import Sender
from losslog.runtime import endings, settings
from losslog.runtime.containment import attempt, encodable, one_line
from losslog.runtime.notices import Once, did_you_mean, prepare, say, tell, warn
from losslog.values.losses import Losses, normalise
from losslog.values.pictures import pictures
from losslog.values.snapshot import Later, Staged, begin, learning_rate, resolve, snapshot, weigher
from losslog.values.targets import Targets
from losslog.values.totals import Totals, told

SAMPLE: Final = 64  # every so many steps the cost of log_batch is measured
FOR_EVER: Final = 4e6  # seconds that every platform can wait

_said = Once()  # of the process
_numbers_of_runs = itertools.count()  # runs made in the same order on every rank share their keys
_new: Final = tuple.__new__  # of a named tuple: without a call of Python's
Function = TypeVar("Function", bound=Callable[..., Any])


class Run:
    """One training run, logged.

    Args:
        name: the run's name; None takes the script's.
        dir: where runs lie; the run folder is ``<dir>/<name>/<run id>``.
        config: hyper-parameters and the like; secrets are redacted, what is not JSON becomes its ``repr``.
        plugins: "auto" (every installed plugin that is ready), a list of names and objects, or None.
        options: constructor keyword arguments by plugin name.
        epochs: planned epochs.
        steps_per_epoch: planned optimizer steps in an epoch.
        resume: continue this run: its folder, its id, its name, ``latest``, ``NAME/latest``; or ``auto``: the newest
            run of this name where it is unfinished, else a new one.
        resume_epoch: the last epoch of the checkpoint continued from; later points are superseded.
        resume_step: the last global step of that checkpoint; later points are superseded.
        follower: False keeps every plugin in this process (debugging, tests).
        non_finite: what a NaN or infinite loss does besides its alert: nothing, or a request to stop.
        images: the data folder: paths of images begin there where `log_images` is not told another.
        components: names that are losses though they sound like metrics (``acc``, ``iou``, ``error``, ...): entries of
            such names beside losses are logged as metrics else.

    Attributes:
        watcher: what logs to it from outside the loop.
        images: the data folder, or None.
        checkpoint: of a run that is resumed, the newest checkpoint that was logged and is there, or None.

    Raises:
        PluginError: a plugin named in a list cannot serve.
        JournalError: there is no such run to resume.
        RunLocked: another live run writes to that folder.
        OSError: the run folder or its journal cannot be made.
        TypeError, ValueError: an argument is of the wrong type.
    """

    checkpoint: Path | None = None
    images: str | None = None

    def __init__(
        self,
        name: str | None = None,
        dir: str | os.PathLike[str] = "runs",
        config: Mapping[str, Any] | None = None,
        plugins: str | Sequence[Any] | None = "auto",
        options: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        resume: str | os.PathLike[str] | None = None,
        resume_epoch: int | None = None,
        resume_step: int | None = None,
        follower: bool = True,
        non_finite: Literal["warn", "stop"] = "warn",
        components: Sequence[str] = (),
        images: str | os.PathLike[str] | None = None,
    ) -> None:
        prepare()
        settings.check()
        self._check(config, non_finite, resume, components, epochs=epochs, steps_per_epoch=steps_per_epoch,
                    resume_epoch=resume_epoch, resume_step=resume_step)  # fmt: skip
        directory = Path(os.environ.get("LOSSLOG_DIR") or dir) if os.fspath(dir) == "runs" else Path(dir)
        self.name = encodable(str(name) if name is not None else script_name())
        self.config: dict[str, Any] = redact(config or {})
        self.images = None if images is None else absolute(os.fsdecode(images))
        self.non_finite = non_finite
        self.rank, self.world_size = place()
        off = settings.off()
        self.logging_rank = self.rank == 0 and not off
        if not off and (note := alone()):
            _said(note)
        self._begin(frozenset(components))
        self._epochs = epochs
        store = Store(next(_numbers_of_runs)) if self.world_size > 1 and not off else None
        leases = None if store is None else Leases(store, self.logging_rank, Tree(self.world_size).every)
        if not self.logging_rank:
            self._dir, self.id = directory / folder.clean_name(self.name), ""
            sender = None if store is None else Sender(self._queue, store, self.rank, self._not_finite, self.world_size)
            self._record_nothing(sender, leases)
            return
        chosen = select(plugins, options)
        found = resumed(resume, directory, name, self.name) if resume else Resumed()
        self._dir = found.folder or folder.create(directory, self.name)
        self.id, self.name, self.checkpoint = self.dir.name, found.name or self.name, found.checkpoint
        writer = Writer(self.dir, patience=2.0)
        if resume == AUTO and resume_epoch is None and resume_step is None:
            resume_epoch, resume_step = found.epoch, found.step
        self._step = resume_step + 1 if resume_step is not None else writer.last_step + 1
        self._epoch = resume_epoch + 1 if resume_epoch is not None else writer.last_epoch + 1
        on = [plugin for plugin in chosen if plugin.state == "ready"]
        used = {each.name: into_journal(each.load(), each.options) for each in chosen if each.options}
        self._start = {"name": self.name, "config": self.config, "epochs": epochs, "steps_per_epoch": steps_per_epoch,
                       "options": used, "origin": origin([each.name for each in on]),
                       "resumed": found.folder is not None and writer.seq > 0}  # fmt: skip
        first: list[Item] = [Event(time.time(), "on_run_start", self._start)]
        goes_back = self._start["resumed"] and (resume_epoch is not None or resume_step is not None)
        if self._start["resumed"]:
            say("%s", found.told(resume_epoch, self._epoch, auto=resume == AUTO and resume_epoch == found.epoch))
        if goes_back:
            first.append(Event(time.time(), "on_resume", {"epoch": resume_epoch, "step": resume_step}))
        began = Position(writer.end, writer.seq - 1)
        tail = Tail(writer.path, own=True, offset=writer.end)
        joiner = None if store is None else Joiner(store, self.rank, self.world_size, self._from_lane)
        drain = Drain(self._queue, writer, tail, self._not_finite, joiner, self._targets.images)
        if goes_back:
            left = self._epoch if resume_epoch is None else resume_epoch
            last = drain.recall(left, resume_step)
            if last is not None and left < self._epoch:  # left between its last step and its end
                first.append(Event(time.time(), "on_epoch_end", {"epoch": left, "epochs": epochs, "step": last,
                                   "losses": None, "val_loss": None, "lr": None, "duration": None}))  # fmt: skip
            elif last is None and left < self._epoch:
                drain.recall(self._epoch, resume_step)
        drain.take(first)  # before anything can read it
        self._record(drain, tail, began, leases)
        self._delivery.serve(on, follower)
        say("%s", start_line(self._dir, chosen))

    @staticmethod
    def _check(config: Any, non_finite: str, resume: Any, components: Any, **counts: int | None) -> None:
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(
                f"config must be a dict, got {type(config).__name__} (vars(args) for an argparse namespace)"
            )
        if isinstance(components, str):
            raise TypeError(f"components must be a list of names: components=[{components!r}]")
        for what, number in counts.items():
            least = {"resume_epoch": 0, "resume_step": -1}.get(what, 1)
            if number is not None and whole(number, what) < least:
                raise ValueError(f"{what} must be at least {least}, got {number}")
        if resume is not None and not isinstance(resume, str | os.PathLike):
            raise TypeError(f"resume must be a run's folder, id or name, latest or auto, got {resume!r:.60}")
        if not resume and (counts["resume_epoch"], counts["resume_step"]) != (None, None):
            raise ValueError("resume_epoch and resume_step say from where resume= goes on: pass resume=, too")
        if non_finite not in ("warn", "stop"):
            raise ValueError(f"non_finite must be 'warn' or 'stop', got {non_finite!r}")

    def _begin(self, components: Collection[str] = ()) -> None:
        """What a run is before anything was logged."""
        begin()
        self._queue = Queue(components)
        self._targets = Targets()
        self._requests = Requests()
        self._step = 0
        self._epoch = 1
        self._epoch_has_batches = False
        self._cost = (0.0, 0)
        # Of keys that nobody gave: ranks that say the same at one step say one thing, a resume says it anew.
        self._asked = time.time_ns() if self.world_size == 1 else 0
        self._closed = self._told_closed = self._stopped = False
        self._closes = itertools.count()  # without a lock: a signal handler may close, too
        self._events, self._speaker = 0, get_ident()  # calls but for batches, and who made the last
        self.watcher: Watcher | None = None
        self._inline: list[Inline] = []
        self._once = Once()
        self._totals = Totals(self._once, components)  # for inline hooks; the drain has its own
        self._specs: list[Any] = []
        self._strict = settings.switch("LOSSLOG_STRICT", False)

    def _record(self, intake: Intake, tail: Tail, began: Position, leases: Leases | None) -> None:
        """Have recorded, delivered and decided from now on what is queued."""
        self._leases = leases
        self._delivery = Delivery(tail, self._handle, self._from_lane, self._specs, began)
        self._recorder = Recorder(self._queue, intake, self._delivery, None if leases is None else leases.exchange)
        if not self._closed:
            self._recorder.start()
            endings.opened(self, lambda: endings.Spoken(self._queue.steps + self._events, self._speaker))

    def _record_nothing(self, sender: Sender | None, leases: Leases | None) -> None:
        """Keep no journal here: hand over what is queued, or let it go."""
        intake = sender or Nowhere(self._queue, self._requests.put)
        self._record(intake, Tail(self._dir / folder.JOURNAL, own=True), BEGINNING, leases)

    def _rest_of_a_handle(self) -> None:
        """What a run that logs nothing needs to answer."""
        self._begin()
        self._epochs = None
        self.forget()
        self._record_nothing(None, None)

    def _handle(self, source: str) -> RunHandle:
        return RunHandle(
            id=self.id, name=self.name, dir=self._dir, config=self.config, source=source, post=self._from_lane
        )

    def _not_finite(self, step: int) -> str:
        """A loss was not finite: act on it, and say what is known of the batch; drain thread."""
        if self.non_finite == "stop":
            self._from_lane("stop", {"reason": f"a loss was not finite at step {step}"})
        return self._targets.describe(step)

    def _from_lane(self, kind: str, data: dict[str, Any]) -> None:
        """An alert or a request from a lane or another rank; any thread."""
        if kind == "alert":
            self._queue.put(Event(time.time(), "on_alert", data))
        elif not self.logging_rank:
            self._queue.put(Event(time.time(), "request", {"kind": kind, "data": data}))
        elif self._leases is not None:
            self._leases.propose(kind, data)
        else:
            self._requests.put(kind, data)

    # ------------------------------------------------------------------ what a loop calls

    def log_batch(
        self,
        losses: Any,
        *,
        lr: Any = None,
        epoch: int | None = None,
        step: int | None = None,
        total: Any = None,
        batch_size: int | None = None,
        targets: Any = None,
        n: int = 1,
        weights: Mapping[str, Any] | None = None,
    ) -> None:
        """Log the losses of one optimizer step.

        Args:
            losses: scalars by component, or one scalar: numbers, numpy scalars or one-element tensors on any device.
            lr: learning rate, a number or numbers by group name.
            epoch: from 1; None is the epoch now open.
            step: global optimizer step, from 0; None counts on.
            total: the optimised total where it is not the sum of the components.
            batch_size: images in the batch.
            targets: the batch's targets; an alert on a non-finite loss names their image ids, and the end of an epoch
                those of the batches with the highest losses.
            n: over how many forward passes the values are means.
            weights: how often components count in the total, where that is not once; with ``total`` only.

        Raises:
            TypeError, ValueError: a key or a value is not what a loss may be; the message names it.
            StopTraining: a plugin registered with ``inline=True`` raised it.
        """
        if self._closed:
            self._after_close("log_batch")
            return
        if self.watcher is not None:
            self.watcher.loop_logs()
        queue = self._queue
        began = time.thread_time() if queue.steps % SAMPLE == 5 else 0.0
        lr = lr if lr is None or type(lr) is float else learning_rate(lr)
        keys, values = snapshot(losses, total)
        if step is epoch is batch_size is targets is weights is None and n == 1 and type(n) is int:  # as most call it
            step, epoch, given = self._step, self._epoch, None
        else:
            if weights and total is None:
                raise ValueError("log_batch: weights say how often components count in a total: give total= too")
            step, epoch = self._checked(step, epoch)
            batch_size, n = None if batch_size is None else whole(batch_size, "batch_size"), whole(n, "n")
            if n < 1:
                raise ValueError(f"log_batch: n must be at least 1, got {n}")
            given, self._epoch = weigher(weights) if weights else None, epoch
            if targets is not None:
                self._keep(step, targets)
        has_total = total is not None
        batch = _new(
            Batch, (time.time(), step, epoch, keys, values, has_total, lr, batch_size, n, True, True, given, None)
        )
        queue.put_batch(batch)
        self._goes_on(batch)
        if self._strict:
            self._raise_strictly()
        if began:
            self.spent(time.thread_time() - began)

    def _checked(self, step: int | None, epoch: int | None) -> tuple[int, int]:
        step = self._step if step is None else step if type(step) is int else whole(step, "step")
        epoch = self._epoch if epoch is None else epoch if type(epoch) is int else whole(epoch, "epoch")
        if not 0 <= step < LARGEST or not 1 <= epoch < LARGEST:
            self._odd(whole(step, "step"), whole(epoch, "epoch"))
        return step, epoch

    def log_forwards(
        self,
        keys: Any,
        values: Any,
        lr: Any,
        n: int,
        has_total: bool,
        weights: Callable[[], Mapping[str, float]] | None = None,
        targets: Sequence[Mapping[str, Any]] = (),
        *,
        stepped: bool = True,
        counted: bool = True,
        alone: Any = None,
    ) -> None:
        """`log_batch` for `losslog.instrument`, which read the values when the model gave them.

        Args:
            keys: component names, None for a scalar.
            values: as `losslog.values.snapshot` gives them.
            lr: plain learning rates.
            n: over how many forward passes the values are means.
            has_total: whether a total comes last in ``values``.
            stepped: False where no optimizer step followed: no record, but checked, and in the epoch's means.
            counted: False where they do not count in the means either.
            weights: gives those that components have in the total, where they are not 1 and autograd told it.
            targets: of the batch, as for `log_batch`.
            alone: gives what a scalar is made of.
        """
        if self._closed:
            self._after_close("a forward pass")
            return
        now, step, epoch = time.time(), self._step, self._epoch
        if targets:
            self._keep(step, targets)
        batch = _new(Batch, (now, step, epoch, keys, values, has_total, lr, None, n, stepped, counted, weights,
                            alone))  # fmt: skip
        self._queue.put_batch(batch)
        if stepped:
            self._goes_on(batch)
        if self._strict:
            self._raise_strictly()

    def _goes_on(self, batch: Batch) -> None:
        self._step = batch[1] + 1
        self._queue.steps += 1
        self._speaker = get_ident()
        self._epoch_has_batches = True
        if self._inline:
            self._call_inline(batch)

    def _keep(self, step: int, targets: Any) -> None:
        self._targets.keep(step, targets)
        self._queue.targets = True

    def spent(self, seconds: float) -> None:
        """What one step's logging has cost this thread, of one in many; `losslog.instrument` tells its own."""
        self._cost = (self._cost[0] + seconds, self._cost[1] + 1)

    def log_later(self, keys: tuple[str, ...], values: list[float] | Staged, *, step: int) -> None:
        """`log_metrics` for `losslog.instrument`.

        Args:
            keys: tags.
            values: as `losslog.values.snapshot` gives them.
            step: x on the global step axis.
        """
        self._emit("on_metrics", {"step": step, "epoch": None, "metrics": Later(keys, values)})

    @property
    def dir(self) -> Path:
        """The run folder; under ``LOSSLOG=off`` made when it is asked for, so that a loop can save beside its run."""
        return folder.made(self._dir) if settings.off() else self._dir

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is in where none is given, from 1."""
        return self._epoch

    @property
    def next_step(self) -> int:
        """The global step that the next batch gets where none is given."""
        return self._step

    def log_eval(
        self, metrics: Mapping[str, Any], *, epoch: int | None = None, step: int | None = None, split: str = "val"
    ) -> None:
        """Log the results of an evaluation.

        Args:
            metrics: numbers by name, or nested: ``{"bbox": {"AP": 0.5, "classes": {"cat": 0.4}}, "segm": {...}}``.
            epoch: the epoch evaluated, from 1; None is the epoch now open, which an epoch is from its first batch on
                until the first batch of the next.
            step: global optimizer step; None is the last one.
            split: what was evaluated.

        Raises:
            TypeError: ``metrics`` is not a dict, or a value in it is not a number.
        """
        if not isinstance(metrics, Mapping):
            raise TypeError(f"metrics must be a dict of numbers or of dicts, got {type(metrics).__name__}")
        data = {"epoch": self._open_epoch(epoch), "step": self._last_step(step), "split": str(split)}
        self._emit("on_eval", data | {"metrics": numbers(metrics, "metrics")})

    def log_metrics(
        self,
        metrics: Mapping[str, Any],
        *,
        step: int | None = None,
        epoch: int | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Log other scalars under their own tags.

        Args:
            metrics: numbers by tag.
            step: x on the global step axis; None with no ``epoch`` is the last step.
            epoch: x on the epoch axis, where ``step`` is None.
            detail: what the numbers sum up, as plain data; it is in the journal, no backend draws it.

        Raises:
            TypeError: ``metrics`` is not a flat dict of numbers, or ``detail`` no plain data.
        """
        if not isinstance(metrics, Mapping):
            raise TypeError(f"metrics must be a dict of numbers, got {type(metrics).__name__}")
        keys, values = snapshot(dict(metrics), name="metrics") if metrics else ((), [])
        if step is None and epoch is None:
            step = self._last_step(None)
        data = {"step": None if step is None else whole(step, "step")}
        data["epoch"] = None if epoch is None else whole(epoch, "epoch")
        data["detail"] = None if detail is None else plain(detail, "detail")
        self._emit("on_metrics", data | {"metrics": Later(keys or (), values)})

    def log_images(
        self,
        split: str,
        images: Sequence[Mapping[str, Any]],
        *,
        name: str = "images",
        folder: str | os.PathLike[str] | None = None,
        epoch: int | None = None,
        step: int | None = None,
        thumbnails: bool = False,
    ) -> None:
        """Log images with what is in them and what the model found: boxes and run-length masks, no pixels.

        Args:
            split: what they are of, ``val`` or ``train``.
            images: a dict each, see `losslog.values.picture.Picture`: ``id``, ``width``, ``height``, ``path``, and
                ``truth`` and ``predictions``: lists of ``{"box": [x1, y1, x2, y2], "label": ..., "score": ...,
                "rle": ...}``. `losslog.detection.images_of` makes them of what a model gives. At most 16, with 100
                objects each way, and 85 kB for each eight: what is beyond is left out, and said.
            name: which images they are; backends and the report keep names apart.
            folder: the data folder: paths are relative to it, or lie in it; None is the run's own.
            epoch: from 1; None is the epoch now open.
            step: global optimizer step; None is the last one.
            thumbnails: keep a JPEG of at most 320 pixels of each image in the run folder, once an image. Needs Pillow.

        Raises:
            TypeError, ValueError: something is not what it may be; the message names it.
        """
        found, gone = pictures(images)
        root = self.images if folder is None else absolute(os.fsdecode(folder))
        data = {"epoch": self._open_epoch(epoch), "step": self._last_step(step), "split": str(split)}
        if not self.logging_rank or self._closed:
            if self._closed:
                self._after_close("log_images")
            return
        for image in found:
            image["path"] = None if image["path"] is None else _path_in(root, image["path"], self.dir)
        if gone:
            self._once("log_images: more than a record takes, %s left out", gone, key="images")
        if thumbnails:
            _, error = attempt(keep_thumbnails, found, root, self.dir)
            if error is not None:
                self._once("log_images: no thumbnails (%s)", one_line(error), key="thumbnails")
        self._emit("on_images", data | {"name": str(name), "images": found, "folder": root})

    @property
    def open_epoch(self) -> int:
        """The epoch that an evaluation logged now belongs to where none is given."""
        return self._open_epoch(None)

    def log_checkpoint(
        self, path: str | os.PathLike[str], *, epoch: int | None = None, step: int | None = None
    ) -> None:
        """Tell that a checkpoint was written.

        Args:
            path: the file; one in the run folder is logged by its place there, so that the folder may move.
            epoch: from 1; None is the epoch now open.
            step: global optimizer step; None is the last one.

        Raises:
            TypeError: ``path`` is no path.
        """
        if not isinstance(path, str | bytes | os.PathLike) or not os.fspath(path):
            raise TypeError(f"log_checkpoint takes the path of a file, got {path!r:.60}")
        file, there = folder.file_in(self._dir, os.fsdecode(path))
        if self.logging_rank and not there:
            self._once("log_checkpoint: there is no file %s, here or in %s; logged as it is", file, self._dir)
        self._emit("on_checkpoint", {"epoch": self._open_epoch(epoch), "step": self._last_step(step), "path": file})

    def end_epoch(self, epoch: int | None = None, *, losses: Any = None, val_loss: Any = None, lr: Any = None) -> None:
        """End an epoch: its means become a record. Does not wait.

        Args:
            epoch: from 1; None is the epoch now open.
            losses: used instead of the means of the batches logged.
            val_loss: validation losses, scalars by component or one scalar.
            lr: learning rate; None is the last one logged.

        Raises:
            TypeError, ValueError: a value is not what a loss may be.
        """
        heard = self.watcher is not None and val_loss is None
        if self.watcher is not None:
            val_loss = self.watcher.epoch_ends(val_loss)
        epoch = self._open_epoch(epoch)
        self._odd(0, epoch)
        data: dict[str, Any] = {"epoch": epoch, "epochs": self._epochs, "step": self._last_step(None)}
        data["losses"] = None if losses is None else normalise(losses)
        data["val_loss"] = None if val_loss is None else normalise(val_loss, "val_loss")
        data["lr"] = learning_rate(lr)
        self._epoch = epoch + 1
        self._epoch_has_batches = False
        self._emit("on_epoch_end", data, heard)

    def epoch_means(self, timeout: float = 30.0) -> Losses | None:
        """Means of the batches since the last `end_epoch`, or of the epoch just ended where there were none since.

        Waits for the drain thread, and so for a GPU's values: meant for once an epoch.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Floats by component, or one float; None where there were no batches, the drain did not answer in time, or
            the run is closed.
        """
        timeout = _seconds(timeout, "epoch_means")
        if self._closed:
            self._after_close("epoch_means")
            return None
        answer = self._recorder.ask(timeout)
        if answer is None:
            warn("epoch_means: no answer within %.3g s (is the disk of %s hanging?)", timeout, self._dir)
            return None
        return answer.means

    def alert(
        self,
        title: str,
        text: str = "",
        level: str = "warning",
        *,
        key: str | None = None,
        component: str | None = None,
        cause: str | None = None,
        evidence: Mapping[str, Any] | None = None,
        source: str = "user",
    ) -> None:
        """Tell a person, in every backend.

        Args:
            title: one line.
            text: what happened and what to do.
            level: ``info``, ``warning`` or ``error``.
            key: identity: one key is raised once in a run; None is a new one each time, and one of several ranks that
                say the same at the same step.
            component: the loss it is about.
            cause: name of the cause that was measured, or None.
            evidence: what was measured, as plain data; or None.
            source: who says so.

        Raises:
            ValueError: unknown level.
            TypeError: ``evidence`` is no plain data.
        """
        self._asked += 1
        key = key or f"user/{title}/{self._step}/{self._asked}"
        place = self._last_step(None), self._open_epoch(None)
        data = alert_data(title, text, level, str(source), key, component, *place, cause, evidence)
        if self.logging_rank:
            self._emit("on_alert", data)
        elif not self._closed:
            self._queue.put(Event(time.time(), "on_alert", data))

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked the run to stop; the loop decides when."""
        self._requests.looked = True
        self._settle()
        if self._requests.stop_reason is None:
            return False
        if not self._stopped:
            self._stopped = True
            say("stop requested: %s", self._requests.stop_reason)
        return True

    @property
    def asked(self) -> bool:
        """Whether a stop or another learning rate is asked for: where not, there is nothing to carry out."""
        if self._leases is not None:
            self._settle()
        self._requests.looked = True
        return self._requests.waiting

    def _settle(self) -> None:
        """With several ranks: let what was decided for this step take effect."""
        if self._leases is not None:
            self._leases.settle(self._queue.steps, self._requests)

    @property
    def stop_reason(self) -> str | None:
        """Why it was asked to stop, or None."""
        return self._requests.stop_reason

    def request_stop(self, reason: str) -> None:
        """Ask the loop to stop: `should_stop` becomes true."""
        self._from_lane("stop", {"reason": str(reason)})

    def request_lr(self, factor: float, group: str | None = None) -> None:
        """Ask for the learning rate to be multiplied; carried out by `apply_requests`.

        Raises:
            ValueError: ``factor`` is not a positive number.
        """
        self._asked += 1
        self._from_lane("lr", lr_data(factor, group) | {"id": f"user/{self.rank}/{self._asked}"})

    def apply_requests(self, optimizer: Any, scheduler: Any = None) -> None:
        """Carry out the learning-rate requests that have come; costs nothing when there are none.

        Scales the rates such that torch's schedulers keep the ratio, also after a resume (`losslog.control.scale_lr`).

        Args:
            optimizer: its parameter groups are changed; or a list of several.
            scheduler: its scheduler, where there is one; or a list of those there are.
        """
        self._settle()
        for request in self._requests.take_lr():
            factor, group = request["factor"], request["group"]
            changed = scale_all(optimizer, scheduler, factor, group)
            if changed:
                text = f"learning rate of {', '.join(changed)} multiplied by {factor:g}"
                say("%s, asked by %s", text, request.get("source", "the script"))
                self.alert("learning rate changed", text, "info", source="losslog")
            else:
                warn("request_lr: no parameter group is named %r: nothing changed", group)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until everything logged so far is in the journal, and durable with every plugin that is there.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether all of it was done in time.
        """
        timeout = _seconds(timeout, "flush")
        return self._closed or self._recorder.flush(timeout)

    # ------------------------------------------------------------------ hooks of the script

    def register(self, plugin: Any, *, name: str | None = None, inline: bool = False) -> Any:
        """Add an object with `losslog.hookimpl` methods; it gets every record of this process.

        Args:
            plugin: an instance or a module.
            name: what the report calls it; None takes its class, module or function name.
            inline: call it in the training thread, in step, with resolved values (this waits for a GPU); ``seq`` is -1,
                and ``on_epoch_end`` has no means but those that the loop gave.

        Returns:
            ``plugin``.

        Raises:
            TypeError: it implements no hook.
            ValueError: that name is taken, or it has a hook or an argument that does not exist.
        """
        found = Plugin.of_object(plugin, name, self._specs)
        if self._closed:  # or another process's
            self._after_close("register")
        if self._closed or not self.logging_rank:
            return plugin
        if found.name in self._taken():
            raise ValueError(f"a plugin named {found.name!r} is registered already: pass name=")
        if inline:
            caller, handle = found.caller(self._specs), self._handle(found.name)
            self._inline.append(Inline(caller, handle, self._strict, self.world_size == 1))
            self._inline[-1].call("on_run_start", self._start)
        else:
            self._delivery.add(found, own=True)
        return plugin

    def _taken(self) -> set[str]:
        return self._delivery.names() | {each.name for each in self._inline}

    def on(self, hook: str) -> Callable[[Function], Function]:
        """Register a function for one hook: ``@run.on("on_eval")``.

        Raises:
            TypeError: ``hook`` is not a name.
            ValueError: there is no such hook.
        """
        if not isinstance(hook, str):
            raise TypeError(f'run.on takes the name of a hook: @run.on("on_epoch_end"), got {hook!r:.60}')
        known = {*ARGUMENTS, *(name for namespace in self._specs for name in hooks_of(namespace))}
        if hook not in known:
            raise ValueError(f"there is no hook {hook!r}{did_you_mean(hook, known)}")

        def decorate(function: Function) -> Function:
            if not callable(function):
                raise TypeError(f"run.on({hook!r}) takes a function, got {function!r:.60}")
            self.register(_plugin_of(hook, function), name=free_name(name_of(function), self._taken()))
            return function

        return decorate

    def add_hookspecs(self, namespace: Any) -> None:
        """Add hooks of your own: functions marked with `losslog.hookspec` in a class or module.

        Raises:
            ValueError: there is none in it, or one has a name of losslog's.
        """
        found = hooks_of(namespace)
        if not found or found.keys() & ARGUMENTS.keys():
            raise ValueError(f"{name_of(namespace)}: {', '.join(found) or 'nothing'} is specified: mark functions with "
                             "@losslog.hookspec, and give them names that losslog's own hooks do not have")  # fmt: skip
        self._specs.append(namespace)

    def emit(self, hook: str, **data: Any) -> None:
        """Emit a hook of your own; it is journaled and delivered like any other.

        Raises:
            ValueError: no hook specification has that name.
            TypeError: an argument is not in the specification, is missing, or is not plain data.
        """
        hooks = {name: each for namespace in self._specs for name, each in hooks_of(namespace).items()}
        if hook in ARGUMENTS:
            raise ValueError(f"{hook} is losslog's own hook: use run.log_{hook[3:]}() and the like")
        if hook not in hooks:
            near = did_you_mean(hook, hooks)
            raise ValueError(f"no hook {hook!r}{near}: add its specification with run.add_hookspecs(...)")
        wanted = [each for each in hooks[hook] if each not in ("run", "seq", "time")]
        for each in data.keys() ^ set(wanted):
            what = "lacks" if each in wanted else "has no argument"
            raise TypeError(f"{hook} {what} {each!r}; its arguments are {', '.join(wanted)}")
        self._emit(hook, {key: plain(value, key) for key, value in data.items()})

    # ------------------------------------------------------------------ inside

    def _emit(self, hook: str, data: dict[str, Any], heard: bool = False) -> None:
        if self._closed:
            self._after_close(hook)
            return
        if not self.logging_rank:
            if hook == "on_epoch_end":
                self._queue.put(Event(time.time(), hook, data, heard))
            return
        self._events, self._speaker = self._events + 1, get_ident()
        at = time.time()
        if self._inline:
            data = {key: value.now() if isinstance(value, Later) else value for key, value in data.items()}
        self._queue.put(Event(at, hook, data, heard))  # before anybody may break off
        self._tell_inline(hook, data)
        if self._strict:
            self._raise_strictly()

    def _call_inline(self, batch: Batch) -> None:
        numbers = resolve(batch.values)
        losses = numbers[0] if batch.keys is None else dict(zip(batch.keys, numbers, strict=False))
        total, weights = numbers[-1] if batch.has_total else None, batch.weights
        if weights is None:
            losses, total, _ = self._totals.whole(self._totals.apart(losses)[0], total)
        else:
            losses, total, _ = told(losses, total)
        data = {"step": batch.step, "epoch": batch.epoch, "losses": losses, "total": total, "lr": batch.lr,
                "batch_size": batch.batch_size, "n": None if batch.n == 1 else batch.n,
                "weights": (weights and weights()) or None}  # fmt: skip
        self._tell_inline("on_batch_losses", data)

    def _tell_inline(self, hook: str, data: dict[str, Any]) -> None:
        for each in self._inline:
            each.call(hook, data)

    def _raise_strictly(self) -> None:
        error = self._delivery.first_error()
        if error is not None:
            raise error

    def _odd(self, step: int, epoch: int) -> None:
        if epoch < 1:
            self._once("epoch=%d: epochs are counted from 1, pass epoch + 1; logged as it is", epoch, key="epoch")
        if step < 0:
            self._once("step=%d: steps are counted from 0; logged as it is", step, key="step")

    def _after_close(self, what: str) -> None:
        if not self._told_closed:
            self._told_closed = True
            warn("%s after close(): ignored (said once)", what)

    def _open_epoch(self, epoch: int | None) -> int:
        if epoch is not None:
            return whole(epoch, "epoch")
        return self._epoch if self._epoch_has_batches else max(self._epoch - 1, 1)

    def _last_step(self, step: int | None) -> int | None:
        if step is not None:
            return whole(step, "step")
        return self._step - 1 if self._step > 0 else None

    @property
    def stats(self) -> dict[str, Any]:
        """What logging has done and cost so far: plain figures.

        ``us_per_step`` is the mean CPU time of a step inside `log_batch`, or in what `attach` and ``losslog run`` add
        (one step in 64 is measured), ``cpu`` the CPU seconds of the drain thread, ``queued`` what it has not taken yet,
        ``dropped`` the batch records that were lost and ``dropped_others`` what else was; ``lanes`` has for each plugin
        its state, the records delivered, those still ``behind``, its errors and the CPU seconds of its thread. What the
        last line of a run says is in ``seconds``, ``epochs``, ``best`` and ``alerts``.
        """
        seconds, samples = self._cost
        found = self._recorder.stats()
        found |= {"steps": self._queue.steps, "us_per_step": 1e6 * seconds / samples if samples else 0.0}
        lanes: dict[str, Any] = found["lanes"]
        for each in self._inline:
            figures = each.figures(found["seq"], found["journal_bytes"])._asdict()
            lanes[each.name] = {**figures, "own": True, "far": False, "behind": 0}
        return found

    # ------------------------------------------------------------------ closing

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> Literal[False]:
        self._end(*endings.status_of(error))
        return False

    def _repr_html_(self) -> str | None:
        return importlib.import_module("losslog.viewing.notebook").inline(self.dir)  # type: ignore[no-any-return]

    def close(self, timeout: float = 30.0) -> None:
        """End the run: everything logged reaches the journal, lanes catch up, the report is said.

        Args:
            timeout: seconds it may take at most, but for the journal's own second; what a backend has not got by then
                the follower delivers, or ``losslog replay``. A second call returns at once.
        """
        self._end("finished", None, _seconds(timeout, "close"))

    def _end(self, status: str, error: str | None, timeout: float = 30.0) -> None:
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher.run_ends(status)
        if self._closed or next(self._closes):
            return
        self._closed = True
        endings.closed(self)
        if status == "finished" and self._stopped:
            status, error = "stopped", self._requests.stop_reason
        data = {"status": status, "error": error, "cost": cost_of(self.stats)}
        try:
            self._tell_inline("on_run_end", data)
        finally:
            self._finish(status, Event(time.time(), "on_run_end", data), timeout)

    def _finish(self, status: str, end: Event, timeout: float) -> None:
        try:
            self._recorder.finish(end, timeout)
        finally:
            self._recorder.leave()
            for line in self._requests.left():
                warn("%s", line)
            if self.logging_rank:
                for level, line in end_report(status, self.stats, self._dir):
                    tell(level, "%s", line)

    def end_at_exit(self, status: str, error: str | None) -> None:
        """Close at interpreter exit, with what the interpreter knows of how it came to its end."""
        self._end(status, error)

    def __reduce__(self) -> Any:
        """Copies and pickles (a model that keeps its run, workers) are silent handles, like in a forked child."""
        return _handle_of, (self.name, self._dir, self.id, self.config, self.rank, self.world_size)

    def forget(self) -> None:
        """In a forked child: this run is the parent's, and silent here."""
        self._closed = self._told_closed = True
        self._queue.items.clear()


def _seconds(timeout: Any, what: str) -> float:
    """A timeout, as long at most as every platform can wait."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout != timeout:
        raise TypeError(f"{what}: timeout must be a number of seconds, got {timeout!r:.60}")
    return float(min(timeout, FOR_EVER))


def _path_in(root: str | None, path: str, home: Path) -> str:
    """How a journal calls a picture: by its place in the data folder, or in the run folder, else absolute."""
    if not os.path.isabs(path) and root is not None:
        return Path(path).as_posix()
    place = Path(absolute(path))
    inside = Path(root) if root is not None else home
    return place.relative_to(inside).as_posix() if place.is_relative_to(inside) else str(place)


def keep_thumbnails(images: Sequence[dict[str, Any]], root: str | None, home: Path) -> None:
    """Have small copies made in the run folder; who makes them needs Pillow, which nothing else in the core does."""
    importlib.import_module("losslog.detection.thumbnails").keep(images, root, home)


def _handle_of(name: str, dir: Path, id: str, config: dict[str, Any], rank: int, world_size: int) -> Run:
    """A run that says who it is, and logs nothing."""
    run = Run.__new__(Run)
    run.name, run._dir, run.id, run.config = name, dir, id, config
    run.rank, run.world_size, run.logging_rank = rank, world_size, False
    run.non_finite = "warn"
    run._rest_of_a_handle()
    return run


def _plugin_of(hook: str, function: Callable[..., Any]) -> SimpleNamespace:
    """A plugin made of one function."""

    @functools.wraps(function, assigned=(), updated=())  # pluggy reads the argument names through it
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return SimpleNamespace(**{hook: hookimpl(call)})


def script_name() -> str:
    """What a run without a name is called."""
    script = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else ""
    script = script if script and script not in ("-c", "-m", "__main__", "ipykernel_launcher") else "run"
    return folder.usable(script, f"run-{script.lstrip('-')}")


def log_training_metrics(
    run: Run,
    epoch: int,
    train_loss: Any = None,
    val_loss: Any = None,
    metrics: Mapping[str, Any] | None = None,
    lr: Any = None,
) -> None:
    """Log one epoch.

    Args:
        run: the run.
        epoch: from 1.
        train_loss: means by component, or one number; None takes the means of the batches logged.
        val_loss: likewise, or None.
        metrics: results of an evaluation, nested or flat; None for none.
        lr: learning rate, a number or numbers by group.

    Raises:
        TypeError, ValueError: a value is not a number.
    """
    if metrics:
        run.log_eval(metrics, epoch=epoch)
    run.end_epoch(epoch, losses=train_loss, val_loss=val_loss, lr=lr)
