"""The hooks: what can be told about a run, and so what a record can be.

Declarations only. Contract, unless a hook says otherwise:

- The plugin's lane calls it. One that is registered with ``inline=True`` is called on the training thread.
- It may raise: `BackendUnavailable` has it called again later, anything else skips this record for this plugin.
- An implementation names only the arguments it wants; arguments are only ever added.
- Every hook also offers ``run`` (a `losslog.control.RunHandle`), ``seq`` (int) and ``time`` (seconds since the epoch).
- Arguments that a record does not carry are None.
- ``on_scalars`` is derived from the records that have numbers, by the caller of a plugin; it is never a record itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from losslog.control import RunHandle
    from losslog.values.picture import Picture

PROJECT: Final = "losslog"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

LossArg = Mapping[str, float] | float
LrArg = Mapping[str, float] | float | None


@hookspec
def on_run_start(
    name: str,
    config: Mapping[str, Any],
    epochs: int | None,
    steps_per_epoch: int | None,
    options: Mapping[str, Mapping[str, Any]],
    origin: Mapping[str, Any],
    resumed: bool,
    run: RunHandle,
    seq: int,
    time: float,
) -> None:
    """The run begins, or continues.

    Called when:
        First, before every other hook; once more at each resume; also the first call of a plugin registered in mid-run.

    Arguments:
        name: the run's name.
        config: what the user passed, secrets redacted.
        epochs: planned epochs, or None.
        steps_per_epoch: planned optimizer steps per epoch, or None.
        options: options by plugin name, secrets redacted.
        origin: command line, script, commit, versions, host and plugins, secrets redacted.
        resumed: True when an earlier process already wrote to this run.

    May raise:
        `BackendUnavailable`: repeated later. Anything else: the plugin has not begun, and gets no records.
    """


@hookspec
def on_scalars(series: Mapping[str, float], axis: str, x: int, run: RunHandle, seq: int, time: float) -> None:
    """One value of each of some series, all at one x: what a backend that keeps scalars needs to know.

    It stands for ``on_batch_losses``, ``on_eval``, ``on_metrics`` and ``on_epoch_end`` together. A plugin may have some
    of these as well.

    Called when:
        For each record of these four that has a number in it, before the record's own hook.

    Arguments:
        series: values by tag, under the names that all backends share; plain floats, also NaN and the infinities.
        axis: ``step`` or ``epoch``: what ``x`` counts.
        x: the global step (from 0) or the epoch (from 1). Metrics stand at their step, else at their epoch; what was
            logged with neither, before the first step, stands at step 0.

    May raise:
        `BackendUnavailable`: repeated later. Anything else: this record is skipped for this plugin, its own hook too.
    """


@hookspec
def on_batch_losses(
    step: int,
    epoch: int,
    losses: LossArg,
    total: float,
    lr: LrArg,
    batch_size: int | None,
    ranks: int | None,
    n: int | None,
    spread: Mapping[str, tuple[float, float]] | None,
    weights: Mapping[str, float] | None,
    run: RunHandle,
    seq: int,
    time: float,
) -> None:
    """The losses of one optimizer step.

    Called when:
        Once per optimizer step (or per `Run.log_batch`).

    Arguments:
        step: global optimizer step, from 0.
        epoch: epoch, from 1.
        losses: components by name, or one float, as the user's loop gave it.
        total: the optimised total if it was given, else the sum of the components.
        lr: learning rate, a float or a dict by parameter group; None when unknown.
        batch_size: images in the batch, or None.
        ranks: over how many ranks the values are means; None is 1.
        n: over how many forward passes (gradient accumulation) the values are means; None is 1.
        spread: smallest and largest value by component where several ranks were averaged, else None.
        weights: of components that do not count once in the total: how often they do. The total is the sum of weight
            times component, and what comes from elsewhere. None where nothing told it, or all count once.
    """


@hookspec
def on_eval(
    epoch: int, step: int | None, split: str, metrics: Mapping[str, Any], run: RunHandle, seq: int, time: float
) -> None:
    """An evaluation has finished.

    Called when:
        After each evaluation, before the end of the epoch it belongs to where the loop allows.

    Arguments:
        epoch: the epoch evaluated, from 1.
        step: global optimizer step, or None.
        split: ``val`` unless said otherwise.
        metrics: numbers by name, or nested: ``{"bbox": {"AP": 0.5, "AP50": 0.7, "classes": {"cat": 0.4}}}``.
    """


@hookspec
def on_images(
    epoch: int,
    step: int | None,
    split: str,
    name: str,
    images: Sequence[Picture],
    folder: str | None,
    run: RunHandle,
    seq: int,
    time: float,
) -> None:
    """Images with what is in them and what the model found.

    Called when:
        At each `Run.log_images`; `losslog.engine.evaluate` does it after each evaluation.

    Arguments:
        epoch: from 1; 0 before training.
        step: global optimizer step, or None.
        split: ``val``, ``train``, ...
        name: which images: ``fixed`` (the same in every epoch), ``hardest`` (of this evaluation), ``labels`` (as the
            model gets them), or what the loop says.
        images: as `losslog.values.picture.Picture` describes them. ``path`` and ``thumbnail`` are files that may be
            read here, or None; `losslog.detection.drawing` draws either way.
        folder: the data folder as the run had it, or None; ``path`` need not be joined with it.
    """


@hookspec
def on_metrics(
    step: int | None,
    epoch: int | None,
    metrics: Mapping[str, float],
    detail: Mapping[str, Any] | None,
    run: RunHandle,
    seq: int,
    time: float,
) -> None:
    """Any other scalars: throughput, memory, gradient norm, the user's own.

    Called when:
        At each `Run.log_metrics`.

    Arguments:
        step: the x value on the global step axis, or None.
        epoch: the x value on the epoch axis when ``step`` is None. Both are None for metrics logged before the first
            step: x is 0 on the step axis.
        metrics: numbers by tag; the tag is used as it is.
        detail: what the numbers sum up, as plain data; or None. With ``reach/<component>``: ``reach``, the parameters
            that each component trains by part, and ``parts``, what is known of each part.
    """


@hookspec
def on_epoch_end(
    epoch: int,
    epochs: int | None,
    step: int | None,
    losses: LossArg | None,
    total: float | None,
    val_loss: LossArg | None,
    lr: LrArg,
    duration: float | None,
    dropped: int | None,
    weights: Mapping[str, float] | None,
    hardest: Mapping[str, Sequence[tuple[float, int, Sequence[int | str]]]] | None,
    run: RunHandle,
    seq: int,
    time: float,
) -> None:
    """An epoch has ended.

    Called when:
        At each `Run.end_epoch`, after the epoch's batches and evaluations.

    Arguments:
        epoch: from 1.
        epochs: planned epochs, or None.
        step: the last global optimizer step, or None.
        losses: mean of each component over the batches that had it, or one float; None when there were no batches.
        total: sum of these means, or the mean of the totals given.
        val_loss: validation losses, a dict or one float, or None.
        lr: the last learning rate logged.
        duration: seconds since the epoch began.
        dropped: batch records dropped in this epoch because the queue was full; None is 0.
        weights: means of the components' weights over the epoch, of those that were not always 1, or None.
        hardest: of each component the batches with the highest losses: loss, step and image ids, at most five; None
            where the loop gives no targets. With several ranks those of the logging one.
    """


@hookspec
def on_checkpoint(epoch: int | None, step: int | None, path: str, run: RunHandle, seq: int, time: float) -> None:
    """A checkpoint was written.

    Called when:
        After the file is complete under its final name.

    Arguments:
        epoch: from 1, or None.
        step: global optimizer step, or None.
        path: the file; relative paths are relative to the run folder.
    """


@hookspec
def on_alert(
    level: str,
    title: str,
    text: str,
    source: str,
    component: str | None,
    step: int | None,
    epoch: int | None,
    key: str,
    cause: str | None,
    evidence: Mapping[str, Any] | None,
    run: RunHandle,
    seq: int,
    time: float,
) -> None:
    """Something a person should know.

    Called when:
        Once per key, after `Run.alert`, an alert of a plugin, or the core's own check for non-finite losses.

    Arguments:
        level: ``info``, ``warning`` or ``error``.
        title: one line.
        text: what happened and what to do.
        source: who says so: ``user``, ``losslog`` or a plugin's name.
        component: the loss it is about, or None.
        step: global optimizer step, or None.
        epoch: from 1, or None.
        key: identity of the alert; one key is raised once in a run.
        cause: name of the cause that was measured, such as ``not_trained`` or ``lr_cut``; None where none was.
        evidence: what was measured, by name: numbers, texts, lists and dicts of them; or None.

    Thread:
        The plugin's lane. An alert raised in here is refused.
    """


@hookspec
def on_resume(epoch: int | None, step: int | None, run: RunHandle, seq: int, time: float) -> None:
    """The run continues from a checkpoint.

    Called when:
        After ``on_run_start(resumed=True)``, where the loop said from where it continues.

    Arguments:
        epoch: the last epoch that counts; points of later epochs are superseded. None: unknown.
        step: the last global step that counts; points of later steps are superseded. None: unknown.
    """


@hookspec
def on_run_end(
    status: str, error: str | None, cost: Mapping[str, Any] | None, run: RunHandle, seq: int, time: float
) -> None:
    """The run is over.

    Called when:
        Last; after it only a resume can follow.

    Arguments:
        status: ``finished``, ``stopped`` (Ctrl-C, a stop request), ``failed`` (an exception) or ``crashed`` (killed).
        error: the exception in one line, or None.
        cost: what logging has cost until then: ``us_per_step`` of the training thread, ``cpu_seconds`` by plugin and of
            the ``journal``; None where the run was killed.
    """


@hookspec
def on_flush(run: RunHandle) -> int | None:
    """Make durable what was delivered.

    Called when:
        After a batch of records: when none is waiting, or every ``flush_every`` seconds, or after 1,024 records.

    Returns:
        None when everything delivered so far is durable, else the ``seq`` of the last record that is.

    May raise:
        `BackendUnavailable`: everything since the last commit is delivered again later. Anything else: it is delivered
        again at once, record by record, and the record whose flush fails is skipped. In both cases the plugin must
        forget what it had buffered, since it will get it again.
    """


HOOKS: Final = tuple(name for name in list(globals()) if name.startswith("on_"))
ARGUMENTS: Final = {name: tuple(inspect.signature(globals()[name]).parameters) for name in HOOKS}
