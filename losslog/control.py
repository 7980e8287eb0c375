"""What hooks may ask of a run, and how the training thread carries it out.

`RunHandle` is used on lane threads, `Requests` by both sides, `scale_lr` on the training thread. Contract:

- A lane asks, the loop decides: requests wait in an inbox that the training thread polls.
- An alert has a key, derived from the record being handled where the plugin gave none, so a redelivery is recognised.
- An alert raised while handling ``on_alert`` is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from losslog.journal.records import plain, whole
from losslog.runtime.notices import Once, warn
from losslog.runtime.pace import Guard

LEVELS: Final = ("info", "warning", "error")
WAITING: Final = 1000  # learning-rate requests that wait for a loop to take them
SEEN: Final = 10_000  # requests that are recognised when they are redelivered
Post = Callable[[str, dict[str, Any]], None]


class Watcher(Protocol):
    """Whoever watches a loop from outside and logs for it: a run's ``watcher`` is asked before things end.

    Its methods run on the training thread and must not raise.
    """

    def epoch_ends(self, val_loss: Any) -> Any:
        """An epoch is about to end; gives the validation losses that go with it, ``val_loss`` where it has none."""

    def loop_logs(self) -> None:
        """The loop logs a step itself."""

    def run_ends(self, status: str) -> None:
        """The run is about to close."""


class RunHandle:
    """The ``run`` argument of every hook.

    Attributes:
        id: the run's identity, the same in every backend and over every resume.
        name: the run's name.
        dir: the run folder.
        config: the user's config, secrets redacted.
        rank: the logging rank.
        handling: hook and seq of the record being handled; set by whoever calls the hooks.
    """

    def __init__(self, *, id: str, name: str, dir: Path, config: Mapping[str, Any], source: str, post: Post) -> None:
        self.id = id
        self.name = name
        self.dir = dir
        self.config = copy.deepcopy(dict(config))
        self.rank = 0
        self._source = source
        self._post = post
        self.handling = ("", -1)
        self._asked = (self.handling, 0)  # learning-rate requests made while handling it

    def alert(
        self,
        title: str,
        text: str = "",
        level: str = "warning",
        *,
        key: str | None = None,
        component: str | None = None,
        step: int | None = None,
        epoch: int | None = None,
        cause: str | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell a person: the alert becomes a record, and every plugin shows it.

        Args:
            title: one line.
            text: what happened and what to do.
            level: ``info``, ``warning`` or ``error``.
            key: identity; one key is raised once in a run. None: source, title and the record being handled.
            component: the loss it is about.
            step: global optimizer step.
            epoch: from 1.
            cause: name of the cause that was measured, or None.
            evidence: what was measured, as plain data; or None.

        Raises:
            ValueError: unknown level, or the alert was raised while handling ``on_alert``.
            TypeError: ``evidence`` is no plain data.
        """
        hook, seq = self.handling
        if hook == "on_alert":
            raise ValueError("an alert cannot be raised while handling on_alert: it would go round for ever")
        key = key or f"{self._source}/{title}/{seq}"
        source = self._source
        self._post("alert", alert_data(title, text, level, source, key, component, step, epoch, cause, evidence))

    def request_stop(self, reason: str) -> None:
        """Ask the loop to stop: ``run.should_stop`` becomes true."""
        self._post("stop", {"reason": str(reason), "source": self._source})

    def request_lr(self, factor: float, group: str | None = None) -> None:
        """Ask the loop to multiply the learning rate.

        Args:
            factor: > 0.
            group: name of a parameter group; None means all.

        Raises:
            ValueError: ``factor`` is not a positive number.
        """
        handling, count = self._asked
        self._asked = (self.handling, count + 1 if handling is self.handling else 1)
        identity = f"{self._source}/{self.handling[1]}/{self._asked[1]}"
        self._post("lr", lr_data(factor, group) | {"source": self._source, "id": identity})


def alert_data(
    title: str, text: str, level: str, source: str, key: str, component: str | None = None, step: int | None = None,
    epoch: int | None = None, cause: str | None = None, evidence: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The data of an ``on_alert`` record; ``cause`` and ``evidence`` are in it where there are any.

    Raises:
        ValueError: unknown level.
        TypeError: ``step`` or ``epoch`` is not a whole number, or ``evidence`` is no plain data.
    """
    if level not in LEVELS:
        raise ValueError(f"alert level {level!r}: use one of {', '.join(LEVELS)}")
    proof = {"cause": None if cause is None else str(cause),
             "evidence": None if evidence is None else plain(evidence, "evidence")}  # fmt: skip
    return {
        "level": level, "title": str(title), "text": str(text), "source": source,
        "component": None if component is None else str(component),
        "step": None if step is None else whole(step, "step"),
        "epoch": None if epoch is None else whole(epoch, "epoch"), "key": str(key),
    } | {name: value for name, value in proof.items() if value is not None}  # fmt: skip


def lr_data(factor: float, group: str | None) -> dict[str, Any]:
    """The data of a learning-rate request.

    Raises:
        ValueError: ``factor`` is not a positive finite number.
    """
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor < float("inf"):
        raise ValueError(f"request_lr: factor must be a positive number, got {factor!r}")
    return {"factor": float(factor), "group": None if group is None else str(group)}


class Gate:
    """Lets each request pass once, and only so many of them: a plugin may ask at every step.

    Args:
        limit: how many may wait.
        refused: said, once, when there are more.
    """

    def __init__(self, limit: int, refused: str) -> None:
        self._limit, self._refused = limit, refused
        self._seen: dict[Any, None] = {}
        self._once = Once()

    def admits(self, identity: Any, waiting: int) -> bool:
        """Whether a request is new, and there is room for it beside the ``waiting`` ones; None is always new."""
        if identity in self._seen:
            return False
        if waiting >= self._limit:
            self._once(self._refused, self._limit)
            return False
        if identity is not None:
            self._seen[identity] = None
        if len(self._seen) > SEEN:
            del self._seen[next(iter(self._seen))]
        return True


class Requests:
    """The inbox of a run: lanes put in, the training thread takes out.

    Bounded, for a plugin that asks at every step: by `WAITING`, where a loop takes nothing out, and by `SEEN`.
    """

    def __init__(self) -> None:
        self._lock = Guard()
        self._lr: list[dict[str, Any]] = []
        self._gate = Gate(WAITING, "%d learning-rate requests wait for run.apply_requests(optimizer): further ones are "
                                   "refused")  # fmt: skip
        self.stop_reason: str | None = None
        self.looked = self.served = False  # whether the loop asks for stops, and for learning rates

    def put(self, kind: str, data: dict[str, Any]) -> None:
        """Add a ``stop`` or ``lr`` request; one that was redelivered is dropped."""
        with self._lock:
            if kind == "stop":
                self.stop_reason = self.stop_reason or data["reason"]
            elif self._gate.admits(data.get("id"), len(self._lr)):
                self._lr.append(data)

    def left(self) -> list[str]:
        """What to say at a run's end of what the loop never looked for."""
        lines = []
        if self.stop_reason is not None and not self.looked:
            lines.append(f"nobody looked at run.should_stop: a request to stop was not seen ({self.stop_reason})")
        if self._lr and not self.served:
            waiting = len(self._lr)
            lines.append(f"nobody called run.apply_requests(optimizer): learning-rate requests that wait: {waiting}")
        return lines

    @property
    def waiting(self) -> bool:
        """Whether there is anything to carry out."""
        return self.stop_reason is not None or bool(self._lr)

    def take_lr(self) -> list[dict[str, Any]]:
        """The learning-rate requests that have come since the last call."""
        self.served = True
        if not self._lr:
            return []
        with self._lock:
            taken, self._lr = self._lr, []
        return taken


def group_name(index: int, group: Mapping[str, Any]) -> str:
    """A parameter group's name: its ``name`` entry, else its index."""
    return str(group.get("name") or index)


def scale_lr(optimizer: Any, scheduler: Any, factor: float, group: str | None) -> list[str]:
    """Multiply learning rates so that the ratio holds for the rest of the schedule.

    Scales ``lr``, ``initial_lr``, ``max_lr`` and ``min_lr`` of the groups and ``base_lrs``, ``max_lrs`` and ``min_lrs``
    of the scheduler (and of those inside it), which all of torch's schedulers and their state dicts build on.

    Args:
        optimizer: anything with ``param_groups``.
        scheduler: a torch scheduler, or a list of them, or None.
        factor: > 0.
        group: name (or index as text) of a parameter group; None means all.

    Returns:
        The names of the groups changed; empty where no group has that name.
    """
    groups = optimizer.param_groups
    chosen = [index for index, each in enumerate(groups) if group is None or group_name(index, each) == group]
    for index in chosen:
        for key in ("lr", "initial_lr", "max_lr", "min_lr"):
            if isinstance(groups[index].get(key), int | float):
                groups[index][key] *= factor
            elif key in groups[index]:  # a tensor lr of a capturable optimizer: changed in place, it is aliased
                groups[index][key].mul_(factor)
    waiting, seen = [*scheduler] if isinstance(scheduler, list) else [scheduler], set()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        for key in ("base_lrs", "max_lrs", "min_lrs", "_last_lr"):
            rates = getattr(each, key, None)
            if isinstance(rates, list) and len(rates) == len(groups):
                setattr(each, key, [rate * factor if i in chosen else rate for i, rate in enumerate(rates)])
        waiting += [*getattr(each, "_schedulers", ()), getattr(each, "after_scheduler", None)]
    if chosen and scheduler is not None and len(chosen) < len(groups) and getattr(scheduler, "eta_min", None):
        warn("the scheduler's eta_min is one number for all groups: the ratio of the scaled groups shrinks towards it")
    return [group_name(index, groups[index]) for index in chosen]


def scale_all(optimizers: Any, schedulers: Any, factor: float, group: str | None) -> list[str]:
    """`scale_lr` of one optimizer or of a list of them, each with those of the schedulers that are its own."""
    if not isinstance(optimizers, list | tuple):
        return scale_lr(optimizers, schedulers, factor, group)
    found: dict[str, None] = {}
    for each in optimizers:
        own = [one for one in schedulers or () if len(optimizers) == 1 or getattr(one, "optimizer", None) is each]
        found |= dict.fromkeys(scale_lr(each, own[0] if len(own) == 1 else own or None, factor, group))
    return [*found]
