"""A run: the queue, the drain thread, and the methods a training loop calls.

Public methods run on the training thread. Contract:

- After the constructor returned, nothing a plugin, a disk or a backend does can raise into training, stall it, or
  deadlock its exit. Wrong types from the caller do raise, at once, naming the key.
- `log_batch` takes a snapshot and appends it to a bounded queue: microseconds, no GPU sync, no I/O, no backend.
- `close` is bounded by its timeout; what is undelivered then stays in the journal, and the report says so.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from losslog import folders, ranks
from losslog.containment import attempt, long_form, must_pass, one_line
from losslog.control import Requests, RunHandle, alert_data, lr_data, scale_lr
from losslog.cursors import Cursor
from losslog.drain import Batch, Drain, Event, Question
from losslog.errors import StopTraining
from losslog.follower import Follower
from losslog.hookspecs import hookimpl
from losslog.journal import Tail, Writer
from losslog.lanes import Lane
from losslog.losses import Losses, normalise
from losslog.notices import prepare, say, warn
from losslog.pace import start_thread
from losslog.plugins import Caller, Plugin, name_of, select
from losslog.records import plain, redact
from losslog.report import end_report, start_line
from losslog.values import learning_rate, resolve, snapshot

DRAIN_EVERY: Final = 0.2  # seconds; also what a kill -9 may lose
QUEUE_LIMIT: Final = 50_000  # batches; at 0.5 kB each 25 MB
SAMPLE: Final = 64  # every so many steps the cost of log_batch is measured

Function = TypeVar("Function", bound=Callable[..., Any])
_open: set[Run] = set()
_at_exit = threading.Lock()
_registered = False


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
        resume: continue this run: its folder, its id, or ``latest``.
        resume_epoch: the last epoch of the checkpoint continued from; later points are superseded.
        resume_step: the last global step of that checkpoint; later points are superseded.
        follower: False keeps every plugin in this process (debugging, tests).

    Raises:
        PluginError: a plugin named in a list cannot serve.
        JournalError: there is no such run to resume.
        RunLocked: another live run writes to that folder.
        OSError: the run folder or its journal cannot be made.
        TypeError, ValueError: an argument is of the wrong type.
    """

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
    ) -> None:
        prepare()
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(
                f"config must be a dict, got {type(config).__name__} (vars(args) for an argparse namespace)"
            )
        directory = Path(os.environ.get("LOSSLOG_DIR") or dir) if os.fspath(dir) == "runs" else Path(dir)
        self.rank, self.world_size = ranks.place()
        self.name = str(name) if name is not None else _script_name()
        self.config: dict[str, Any] = redact(config or {})
        self._requests = Requests()
        self._queue: deque[Any] = deque()
        self._wake = threading.Event()
        self._step = 0
        self._epoch = 1
        self._epoch_has_batches = False
        self._lost = 0
        self._steps = 0
        self._cost = (0.0, 0)
        self._alerts = 0
        self._closed = False
        self._closing = threading.Lock()
        self._inline: list[tuple[Caller, RunHandle, list[int]]] = []
        self._lanes: dict[str, Lane] = {}
        self._follower: Follower | None = None
        self._drain: Drain | None = None
        self._drain_thread: threading.Thread | None = None
        self._specs: tuple[Any, ...] = ()
        self._strict = bool(os.environ.get("LOSSLOG_STRICT"))
        self._plugins: list[Plugin] = []
        self._report: list[str] = []
        self._stopped = False
        self.logging_rank = self.rank == 0
        if not self.logging_rank:
            self.dir = directory / folders.clean_name(self.name)
            self.id = ""
            return
        self._plugins = select(plugins, options)
        self.dir = (
            folders.find(os.fspath(resume), directory) if resume is not None else folders.create(directory, self.name)
        )
        self.id = self.dir.name
        if resume is not None and name is None:
            self.name = self.dir.parent.name
        self._open(resume is not None, options, epochs, steps_per_epoch, resume_epoch, resume_step, follower)

    # ------------------------------------------------------------------ opening

    def _open(
        self,
        resumed: bool,
        options: Mapping[str, Mapping[str, Any]] | None,
        epochs: int | None,
        steps_per_epoch: int | None,
        resume_epoch: int | None,
        resume_step: int | None,
        follower: bool,
    ) -> None:
        writer = Writer(self.dir)
        resumed = resumed and writer.seq > 0
        self._step = resume_step + 1 if resume_step is not None else writer.last_step + 1
        self._epoch = resume_epoch + 1 if resume_epoch is not None else writer.last_epoch + 1
        self._began_at = writer.end
        self._epochs = epochs
        self._tail = Tail(writer.path, own=True, offset=writer.end)
        self._drain = Drain(writer, self._tail, lambda: self._lost)
        start = {
            "name": self.name,
            "config": self.config,
            "epochs": epochs,
            "steps_per_epoch": steps_per_epoch,
            "options": redact({plugin.name: plugin.options for plugin in self._plugins if plugin.options}),
            "resumed": resumed,
        }
        first = [Event(time.time(), "on_run_start", start)]
        if resumed and (resume_epoch is not None or resume_step is not None):
            first.append(Event(time.time(), "on_resume", {"epoch": resume_epoch, "step": resume_step}))
        self._drain.take(first)  # before anything can read it
        serving = [plugin for plugin in self._plugins if plugin.state == "ready"]
        near = [
            plugin for plugin in serving if plugin.near or not follower or os.environ.get("LOSSLOG_FOLLOWER") == "0"
        ]
        far = [plugin for plugin in serving if plugin not in near]
        for plugin in near:
            self._add_lane(plugin)
        if far:
            self._follow(far)
        self._drain_thread = start_thread(self._drain_loop, "losslog-drain")
        _open.add(self)
        _close_at_exit()
        say("%s", start_line(self.dir, self._plugins))

    def _follow(self, far: list[Plugin]) -> None:
        self._follower = Follower(
            self.dir, [{"name": plugin.name, "options": plugin.options} for plugin in far], self._from_lane
        )
        trouble = self._follower.start()
        if trouble:
            warn("the follower cannot be started (%s): all plugins run in this process", trouble)
            self._follower = None
            for plugin in far:
                self._add_lane(plugin)

    def _add_lane(self, plugin: Plugin, *, own: bool = False) -> None:
        """A near lane; with ``own`` for a hook of the user's script, whose cursor lives as long as this process."""
        cursor = Cursor(None if own else self.dir, plugin.name)
        cursor.offset = cursor.start = self._began_at if own else 0
        lane = Lane(
            plugin.name,
            lambda: plugin.object,
            self._tail,
            cursor,
            self._handle(plugin.name),
            near=True,
            specs=self._specs,
            batch_every=int(plugin.options.get("batch_every", 1)),
            strict=self._strict,
        )
        self._lanes[plugin.name] = lane
        lane.start()

    def _handle(self, source: str) -> RunHandle:
        return RunHandle(
            id=self.id, name=self.name, dir=self.dir, config=self.config, source=source, post=self._from_lane
        )

    def _from_lane(self, kind: str, data: dict[str, Any]) -> None:
        """An alert or a request from a lane, near or far; any thread."""
        if kind == "alert":
            self._put(Event(time.time(), "on_alert", data))
        else:
            self._requests.put(kind, data)

    # ------------------------------------------------------------------ the drain thread

    def _drain_loop(self) -> None:
        while True:
            self._wake.wait(DRAIN_EVERY)
            self._wake.clear()
            items = []
            with contextlib.suppress(IndexError):
                while True:
                    items.append(self._queue.popleft())
            last = bool(items) and items[-1] is None
            self._process([item for item in items if item is not None])
            if last:
                return

    def _process(self, items: list[Any]) -> None:
        assert self._drain is not None
        _, error = attempt(self._drain.take, items)
        if error is not None:  # a defect of ours must not end logging silently
            warn("internal error while recording, some records are missing:\n%s", long_form(error))
        for lane in list(self._lanes.values()):
            lane.wake()
        if self._follower is not None and any(isinstance(item, Event) for item in items):
            self._follower.wake()

    def _put(self, item: Any) -> None:
        self._queue.append(item)
        self._wake.set()

    def _ask(self, timeout: float) -> Question | None:
        """Wait until everything queued so far is recorded; None where that takes longer."""
        question = Question()
        self._put(question)
        return question if question.answered.wait(timeout) else None

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
    ) -> None:
        """Log the losses of one optimizer step.

        Args:
            losses: scalars by component, or one scalar: numbers, numpy scalars or one-element tensors on any device.
            lr: learning rate, a number or numbers by group name.
            epoch: from 1; None is the epoch now open.
            step: global optimizer step, from 0; None counts on.
            total: the optimised total where it is not the sum of the components.
            batch_size: images in the batch.
            targets: the batch's targets; an alert on a non-finite loss names their image ids.
            n: over how many forward passes the values are means.

        Raises:
            TypeError, ValueError: a key or a value is not what a loss may be; the message names it.
            StopTraining: a plugin registered with ``inline=True`` raised it.
        """
        if self._closed:
            self._after_close("log_batch")
            return
        sampled = not self._steps % SAMPLE
        began = time.perf_counter() if sampled else 0.0
        keys, values = snapshot(losses, total)
        if lr is not None and type(lr) is not float:
            lr = learning_rate(lr)
        if step is None:
            step = self._step
        elif type(step) is not int:
            step = _whole(step, "step")
        if epoch is None:
            epoch = self._epoch
        else:
            epoch = self._epoch = epoch if type(epoch) is int else _whole(epoch, "epoch")
        self._step = step + 1
        self._steps += 1
        self._epoch_has_batches = True
        if len(self._queue) < QUEUE_LIMIT:
            self._queue.append(Batch(time.time(), step, epoch, keys, values, total is not None, lr, batch_size, n))
        else:
            self._lost += 1
        if sampled:
            self._cost = (self._cost[0] + time.perf_counter() - began, self._cost[1] + 1)
        if self._inline:
            self._call_inline(step, epoch, keys, values, total is not None, lr, batch_size)
        if self._strict:
            self._raise_strictly()

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
        self._emit("on_eval", data | {"metrics": _numbers(metrics, "metrics")})

    def log_metrics(self, metrics: Mapping[str, Any], *, step: int | None = None, epoch: int | None = None) -> None:
        """Log other scalars under their own tags.

        Args:
            metrics: numbers by tag.
            step: x on the global step axis; None with no ``epoch`` is the last step.
            epoch: x on the epoch axis, where ``step`` is None.

        Raises:
            TypeError: ``metrics`` is not a flat dict of numbers.
        """
        if not isinstance(metrics, Mapping):
            raise TypeError(f"metrics must be a dict of numbers, got {type(metrics).__name__}")
        keys, values = snapshot(dict(metrics)) if metrics else ((), [])
        if step is None and epoch is None:
            step = self._last_step(None)
        data = {"step": None if step is None else _whole(step, "step")}
        data["epoch"] = None if epoch is None else _whole(epoch, "epoch")
        self._emit("on_metrics", data | {"metrics": _Later(keys or (), values)})

    def log_checkpoint(
        self, path: str | os.PathLike[str], *, epoch: int | None = None, step: int | None = None
    ) -> None:
        """Tell that a checkpoint was written.

        Args:
            path: the file.
            epoch: from 1; None is the epoch now open.
            step: global optimizer step; None is the last one.
        """
        data = {"epoch": self._open_epoch(epoch), "step": self._last_step(step), "path": os.fspath(path)}
        self._emit("on_checkpoint", data)

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
        epoch = self._open_epoch(epoch)
        data = {
            "epoch": epoch,
            "epochs": getattr(self, "_epochs", None),
            "step": self._last_step(None),
            "losses": None if losses is None else normalise(losses),
            "val_loss": None if val_loss is None else normalise(val_loss, "val_loss"),
            "lr": learning_rate(lr),
        }
        self._epoch = epoch + 1
        self._epoch_has_batches = False
        self._emit("on_epoch_end", data)

    def epoch_means(self, timeout: float = 30.0) -> Losses | None:
        """Means of the batches since the last `end_epoch`, or of the epoch just ended where there were none since.

        Waits for the drain thread, and so for a GPU's values: meant for once an epoch.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Floats by component, or one float; None where there were no batches, or the drain did not answer in time.
        """
        if self._drain_thread is None or not self._drain_thread.is_alive():
            return None
        answer = self._ask(timeout)
        if answer is None:
            warn("epoch_means: no answer within %.3g s (is the disk of %s hanging?)", timeout, self.dir)
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
    ) -> None:
        """Tell a person, in every backend.

        Args:
            title: one line.
            text: what happened and what to do.
            level: ``info``, ``warning`` or ``error``.
            key: identity: one key is raised once in a run; None is a new one each time.
            component: the loss it is about.

        Raises:
            ValueError: unknown level.
        """
        self._alerts += 1
        key = key or f"user/{title}/{self._step}/{self._alerts}"
        self._emit(
            "on_alert", alert_data(title, text, level, "user", key, component, self._last_step(None), self._epoch)
        )

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked the run to stop; the loop decides when."""
        if self._requests.stop_reason is None:
            return False
        if not self._stopped:
            self._stopped = True
            say("stop requested: %s", self._requests.stop_reason)
        return True

    @property
    def stop_reason(self) -> str | None:
        """Why it was asked to stop, or None."""
        return self._requests.stop_reason

    def request_stop(self, reason: str) -> None:
        """Ask the loop to stop: `should_stop` becomes true."""
        self._requests.put("stop", {"reason": str(reason)})

    def request_lr(self, factor: float, group: str | None = None) -> None:
        """Ask for the learning rate to be multiplied; carried out by `apply_requests`.

        Raises:
            ValueError: ``factor`` is not a positive number.
        """
        self._alerts += 1
        self._requests.put("lr", lr_data(factor, group) | {"id": f"user/{self._alerts}"})

    def apply_requests(self, optimizer: Any, scheduler: Any = None) -> None:
        """Carry out the learning-rate requests that have come; costs nothing when there are none.

        Scales the rates such that torch's schedulers keep the ratio, also after a resume (`losslog.control.scale_lr`).

        Args:
            optimizer: its parameter groups are changed.
            scheduler: its scheduler, where there is one.
        """
        for request in self._requests.take_lr():
            factor, group = request["factor"], request["group"]
            changed = scale_lr(optimizer, scheduler, factor, group)
            if changed:
                text = f"learning rate of {', '.join(changed)} multiplied by {factor:g}"
                say("%s, asked by %s", text, request.get("source", "the script"))
                self.alert("learning rate changed", text, "info")
            else:
                warn("request_lr: no parameter group is named %r: nothing changed", group)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until everything logged so far is in the journal and near lanes have handled it.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether all of it was done in time.
        """
        deadline = time.monotonic() + timeout
        if self._drain_thread is None or self._ask(timeout) is None:
            return self._drain_thread is None
        return self._wait_for_lanes(deadline, committed=True)

    # ------------------------------------------------------------------ hooks of the script

    def register(self, plugin: Any, *, name: str | None = None, inline: bool = False) -> Any:
        """Add an object with `losslog.hookimpl` methods; it gets every record of this process.

        Args:
            plugin: an instance or a module.
            name: what the report calls it; None takes its class, module or function name.
            inline: call it in the training thread, in step, with resolved values (this waits for a GPU); ``seq`` is -1.

        Returns:
            ``plugin``.

        Raises:
            TypeError: it implements no hook.
            ValueError: that name is taken, or a hook has an argument that does not exist.
        """
        found = Plugin.of_object(plugin, name)
        if not self.logging_rank:
            return plugin
        if found.name in self._lanes or any(caller.name == found.name for caller, _, _ in self._inline):
            raise ValueError(f"a plugin named {found.name!r} is registered already: pass name=")
        try:
            caller = Caller(found.name, plugin, self._specs)
        except Exception as error:
            raise ValueError(f"{found.name}: {error}") from error
        if caller.unknown:
            raise ValueError(
                f"{found.name}: there is no hook {', '.join(caller.unknown)} (add_hookspecs adds your own)"
            )
        if inline:
            self._inline.append((caller, self._handle(found.name), [0]))
            self._inline_call(self._inline[-1], "on_run_start", self._start_data())
        else:
            self._add_lane(found, own=True)
        return plugin

    def on(self, hook: str) -> Callable[[Function], Function]:
        """Register a function for one hook: ``@run.on("on_eval")``."""

        def decorate(function: Function) -> Function:
            base = name_of(function)
            name, count = base, 1
            while name in self._lanes:
                count += 1
                name = f"{base}-{count}"
            self.register(_Function(hook, function), name=name)
            return function

        return decorate

    def add_hookspecs(self, namespace: Any) -> None:
        """Add hooks of your own: functions marked with `losslog.hookspec` in a class or module.

        Raises:
            ValueError: there is none in it.
        """
        import pluggy

        pluggy.PluginManager("losslog").add_hookspecs(namespace)
        self._specs = (*self._specs, namespace)

    def emit(self, hook: str, **data: Any) -> None:
        """Emit a hook of your own; it is journaled and delivered like any other.

        Raises:
            ValueError: no hook specification has that name.
            TypeError: an argument is not plain data.
        """
        if not any(hasattr(namespace, hook) for namespace in self._specs):
            raise ValueError(f"no hook {hook!r}: add its specification with run.add_hookspecs(...)")
        self._emit(hook, {key: plain(value, key) for key, value in data.items()})

    # ------------------------------------------------------------------ inside

    def _emit(self, hook: str, data: dict[str, Any]) -> None:
        if self._closed:
            self._after_close(hook)
            return
        if not self.logging_rank:
            return
        at = time.time()
        if self._inline:
            now = {key: value.now() if isinstance(value, _Later) else value for key, value in data.items()}
            for each in self._inline:
                self._inline_call(each, hook, now)
            data = now
        self._put(Event(at, hook, data))
        if self._strict:
            self._raise_strictly()

    def _call_inline(
        self, step: int, epoch: int, keys: Any, values: Any, has_total: bool, lr: Any, batch_size: int | None
    ) -> None:
        numbers = resolve(values)
        losses = numbers[0] if keys is None else dict(zip(keys, numbers, strict=False))
        total = numbers[-1] if has_total else sum(losses.values()) if isinstance(losses, dict) else losses
        data = {"step": step, "epoch": epoch, "losses": losses, "total": total, "lr": lr, "batch_size": batch_size}
        for each in self._inline:
            self._inline_call(each, "on_batch_losses", data)

    def _inline_call(self, inline: tuple[Caller, RunHandle, list[int]], hook: str, data: Mapping[str, Any]) -> None:
        caller, handle, errors = inline
        handle.handling(hook, self._steps)
        try:
            caller.call(hook, plain(data, hook), handle, -1, time.time())
        except StopTraining:
            raise
        except BaseException as error:
            if must_pass(error) or self._strict:
                raise
            errors[0] += 1
            if errors[0] & (errors[0] - 1) == 0:
                warn("inline plugin %s failed in %s (%d so far):\n%s", caller.name, hook, errors[0], long_form(error))

    def _start_data(self) -> dict[str, Any]:
        return {"name": self.name, "config": self.config, "epochs": self._epochs, "options": {}, "resumed": False}

    def _raise_strictly(self) -> None:
        for lane in self._lanes.values():
            if lane.first_error is not None:
                error, lane.first_error = lane.first_error, None
                raise error

    def _after_close(self, what: str) -> None:
        if not getattr(self, "_told_closed", False):
            self._told_closed = True
            warn("%s after close(): ignored (said once)", what)

    def _open_epoch(self, epoch: int | None) -> int:
        if epoch is not None:
            return _whole(epoch, "epoch")
        return self._epoch if self._epoch_has_batches else max(self._epoch - 1, 1)

    def _last_step(self, step: int | None) -> int | None:
        if step is not None:
            return _whole(step, "step")
        return self._step - 1 if self._step > 0 else None

    @property
    def stats(self) -> dict[str, Any]:
        """What logging has done and cost so far: plain figures.

        ``us_per_step`` is the mean time inside `log_batch` (every 64th call is measured); ``lanes`` has for each plugin
        its state, the records delivered, those still ``behind``, its errors and its CPU seconds.
        """
        drain, end = self._drain, 0 if self._drain is None else self._drain.writer.end
        lanes = {name: lane.stats() for name, lane in list(self._lanes.items())}
        if self._follower is not None:
            blank = {"state": "starting", "reason": "", "delivered": 0, "errors": 0, "offset": 0, "committed": 0,
                     "seq": -1, "cpu": 0.0}  # fmt: skip
            far = {each["name"]: dict(blank) for each in self._follower._plugins}
            lanes |= far | {name: dict(each) for name, each in self._follower.lanes.items()}
        last = 0 if drain is None else drain.writer.seq - 1 - drain.unwritten
        for each in lanes.values():
            each["behind"] = max(last - each["seq"], 0) if each["committed"] < end else 0
        for caller, _, errors in self._inline:
            lanes[caller.name] = {"state": "inline", "reason": "", "delivered": self._steps, "errors": errors[0],
                                  "offset": end, "committed": end, "seq": last, "cpu": 0.0, "behind": 0}  # fmt: skip
        seconds, samples = self._cost
        return {
            "steps": self._steps,
            "records": 0 if drain is None else drain.records,
            "dropped": self._lost + (0 if drain is None else drain.dropped),
            "unwritten": 0 if drain is None else drain.unwritten,
            "journal": "" if drain is None else drain.trouble,
            "journal_bytes": end,
            "queued": len(self._queue),
            "us_per_step": 1e6 * seconds / samples if samples else 0.0,
            "lanes": lanes,
            "follower": None
            if self._follower is None
            else {"pid": self._follower.pid, "restarts": self._follower.restarts},
        }

    # ------------------------------------------------------------------ closing

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> Literal[False]:
        self._end(*_status_of(error))
        return False

    def close(self, timeout: float = 30.0) -> None:
        """End the run: everything logged reaches the journal, lanes catch up, the report is said.

        Args:
            timeout: seconds it may take at most; what a backend has not got by then the follower delivers, or
                ``losslog replay``. A second call returns at once.
        """
        self._end("stopped" if self._stopped else "finished", None, timeout)

    def _end(self, status: str, error: str | None, timeout: float = 30.0) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
        _open.discard(self)
        if not self.logging_rank or self._drain is None:
            return
        try:
            self._finish(status, error, time.monotonic() + timeout, timeout)
        finally:
            if self._follower is not None:
                self._follower.leave()
            for lane in self._lanes.values():
                lane.abandon()
            self._report = end_report(status, self.stats, self.dir)
            for line in self._report:
                say("%s", line)

    def _finish(self, status: str, error: str | None, deadline: float, timeout: float) -> None:
        assert self._drain is not None
        assert self._drain_thread is not None
        self._drain.pace.active = False
        for lane in self._lanes.values():
            lane.hurry()
        if self._ask(timeout) is not None:
            self._wait_for_lanes(time.monotonic() + timeout / 4, committed=False)
            for each in self._inline:
                self._inline_call(each, "on_run_end", {"status": status, "error": error})
            self._put(Event(time.time(), "on_run_end", {"status": status, "error": error}))
        self._queue.append(None)
        self._wake.set()
        self._drain_thread.join(max(deadline - time.monotonic(), 0.1))
        if self._drain_thread.is_alive():
            return  # the disk hangs: nothing of ours may hold the process
        end = self._drain.writer.end
        for lane in self._lanes.values():
            lane.finish(end)
        if self._follower is not None:
            self._follower.finish(end)
        self._drain.writer.close()
        self._wait_for_lanes(deadline, committed=True)

    def _wait_for_lanes(self, deadline: float, *, committed: bool) -> bool:
        """Wait until the lanes have the journal's end; those that back off or hang are not waited for."""
        assert self._drain is not None
        what = "committed" if committed else "offset"
        while True:
            end = self._drain.writer.end
            if self._follower is not None and not self._follower.done.is_set():
                self._follower.report()
                self._follower.news.wait(min(0.25, max(deadline - time.monotonic(), 0.0)))
            late = [each for each in self.stats["lanes"].values() if each[what] < end]
            busy = [each for each in late if each["state"] in ("starting", "live")]
            gone = self._follower is not None and self._follower.done.is_set()
            if not busy or (gone and all(lane.idle or lane.offset >= end for lane in self._lanes.values())):
                return not late
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)

    def _forget(self) -> None:
        """In a forked child: this run is the parent's."""
        self._closed = self._told_closed = True
        self._queue = deque()


class _Function:
    """A plugin made of one function."""

    def __init__(self, hook: str, function: Callable[..., Any]) -> None:
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        call.__wrapped__ = function  # type: ignore[attr-defined] # pluggy reads the argument names through it
        setattr(self, hook, hookimpl(call))


class _Later:
    """Metrics whose values may still be on a device."""

    def __init__(self, keys: tuple[str, ...], values: Any) -> None:
        self._keys, self._values = keys, values

    def now(self) -> dict[str, float]:
        return dict(zip(self._keys, resolve(self._values), strict=True))


def _numbers(value: Any, path: str) -> dict[str, Any]:
    found = plain(value, path)

    def check(each: Any, at: str) -> None:
        if isinstance(each, dict):
            for key, item in each.items():
                check(item, f"{at}[{key!r}]")
        elif isinstance(each, bool) or not isinstance(each, int | float):
            raise TypeError(f"{at} is {each!r:.60}: pass a number, or leave it out")

    check(found, path)
    return dict(found)


def _whole(value: Any, name: str) -> int:
    """``value`` as an int.

    Raises:
        TypeError: it is not a whole number.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}")
    return int(value.__index__())


def _script_name() -> str:
    script = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else ""
    return script if script and script not in ("-c", "-m", "__main__", "ipykernel_launcher") else "run"


def _status_of(error: BaseException | None) -> tuple[str, str | None]:
    if error is None:
        return "finished", None
    if isinstance(error, KeyboardInterrupt | StopTraining):
        return "stopped", one_line(error)
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "finished", None
    return "failed", one_line(error)


def _close_at_exit() -> None:
    """Close open runs when the interpreter ends; while threads still run, and after concurrent.futures would be."""
    global _registered
    with _at_exit:
        if _registered:
            return
        _registered = True
        import concurrent.futures.thread  # noqa: F401 - its own exit handler must run after ours

        register = getattr(threading, "_register_atexit", None)
        if register is None or attempt(register, _close_all)[1] is not None:
            atexit.register(_close_all)


def _close_all() -> None:
    status, text = _status_of(getattr(sys, "last_exc", None) or getattr(sys, "last_value", None))
    for run in list(_open):
        if status == "finished" and run._stopped:
            status = "stopped"
        attempt(run._end, status, text)


def _after_fork() -> None:
    for run in list(_open):
        run._forget()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
