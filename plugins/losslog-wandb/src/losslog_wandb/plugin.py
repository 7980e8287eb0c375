"""The W&B plugin: records become rows.

Runs on a lane of the follower process (with ``reuse=True``, on a lane of the training process). Contract:

- wandb is imported when the first record comes, not before; the W&B run is opened then too, so that a lane with
  nothing to deliver opens nothing.
- Every row carries ``losslog/seq``. What W&B has is read back from its own local file (from the server for an online
  run whose process was killed), and a record that is there is skipped: a kill neither loses nor doubles rows.
- ``on_flush`` is durable when the row is in that file, which wandb-core writes once a second.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time as clock
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from losslog import BackendUnavailable, batch_series, epoch_series, eval_series, hookimpl
from losslog_wandb.localfiles import SEQ, LocalFile, local_files
from losslog_wandb.options import check_mode, check_settings, vendor_folder
from losslog_wandb.session import (
    EPOCH,
    FINISH_SECONDS,
    STEP,
    Session,
    forget_service,
    from_environment,
    open_session,
    service,
    usable,
)

_NOT_IN_ID: Final = re.compile(r"[^A-Za-z0-9_.-]")
_NOT_IN_PROJECT: Final = re.compile(r"[/\\#?%:\x00-\x1f\x7f]+")


class WandbPlugin:
    """Every series of a run in Weights & Biases.

    Args:
        project: W&B project. None: ``WANDB_PROJECT``, else the run's name, without what W&B refuses in one.
        entity: user or team. None: ``WANDB_ENTITY``, else the account's default.
        name: display name. None: ``WANDB_NAME``, else the run's id.
        group: W&B group. None: ``WANDB_RUN_GROUP``.
        tags: W&B tags.
        mode: ``online``, ``offline`` or ``disabled``. None: ``WANDB_MODE``, else online where a key is stored and the
            host answers, offline otherwise.
        reuse: write into the user's own live ``wandb.run`` instead of a run of ours. This costs a thread in the
            training process, and rows that the user logs with a ``step=`` below W&B's own counter are dropped by W&B.
        checkpoints: upload checkpoints as model artifacts.
        **settings: any field of ``wandb.Settings``.

    Raises:
        NotReady: wandb is not installed.
        TypeError, ValueError: a wrong option.
    """

    consent_variables = ("WANDB_MODE",)
    flush_every = 0.5
    near = False

    def __init__(
        self,
        *,
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
        mode: str | None = None,
        reuse: bool = False,
        checkpoints: bool = False,
        **settings: Any,
    ) -> None:
        folder = vendor_folder()
        check_mode(mode)
        check_settings(settings, folder)
        if isinstance(tags, str):
            raise TypeError(f"wandb option tags={tags!r}: pass a list of strings")
        if reuse and _live_run() is None:
            raise ValueError("wandb option reuse=True needs a live wandb.run: call wandb.init() first, or leave it out")
        self.near = reuse
        self._mode, self._checkpoints, self._settings = mode, checkpoints, usable(settings)
        self._given: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "name": name,
            "group": group,
            "tags": list(tags) or None,
        }
        self._start: dict[str, Any] | None = None
        self._session: Session | None = None
        self._service: object = None
        self._file: LocalFile | None = None
        self._finished = 0.0
        self._have = self._sent = -1  # the last seq that W&B has on disk, and the last handed to the session

    @staticmethod
    def live_options() -> dict[str, Any]:
        """Options from the user's live ``wandb.run`` in this process: ours becomes its sibling. Never imports wandb."""
        live = _live_run()
        if live is None:
            return {}
        if live.disabled:
            return {"mode": "disabled"}
        options = {"project": live.project, "entity": live.entity, "group": live.group or live.id}
        if live.offline:
            options["mode"] = "offline"
        return {name: value for name, value in options.items() if value}

    @hookimpl
    def on_run_start(self, name: str, config: Mapping[str, Any], run: Any) -> None:
        """Remember how to open the run; told again of an open one, take the newer config."""
        self._start = {"name": name, "config": dict(config or {}), "run": run}
        if self._session is not None:
            kept: Any = self._session.wandb_run.config
            kept.update(self._start["config"], allow_val_change=True)

    def delivered_upto(self, run: Any) -> int | None:
        """The last seq that W&B has, or -1."""
        if self.near or self._mode == "disabled":
            return None
        files = self._files()
        if _killed_online(files):
            self._open()
        else:
            self._have = self._sent = _highest(files)
        return self._have

    @hookimpl
    def on_batch_losses(self, step: int, losses: Any, total: Any, lr: Any, seq: int, time: float) -> None:
        """A row on the step axis."""
        self._log(batch_series(losses, total, lr), STEP, step, seq, time)

    @hookimpl
    def on_eval(self, epoch: int, split: str, metrics: Mapping[str, Any], seq: int, time: float) -> None:
        """A row on the epoch axis."""
        self._log(eval_series(metrics, split), EPOCH, epoch, seq, time)

    @hookimpl
    def on_metrics(
        self, step: int | None, epoch: int | None, metrics: Mapping[str, float], seq: int, time: float
    ) -> None:
        """A row on the axis that was given."""
        axis, x = (EPOCH, epoch) if step is None else (STEP, step)
        self._log(metrics, axis, x, seq, time)

    @hookimpl
    def on_epoch_end(self, epoch: int, losses: Any, total: Any, val_loss: Any, lr: Any, seq: int, time: float) -> None:
        """A row on the epoch axis."""
        self._log(epoch_series(losses, total, val_loss, lr), EPOCH, epoch, seq, time)

    @hookimpl
    def on_checkpoint(self, epoch: int | None, path: str, run: Any, seq: int, time: float) -> None:
        """An artifact, where asked for."""
        if self._checkpoints:
            aliases = [] if epoch is None else [f"epoch_{epoch:03d}"]
            name = f"{_wandb_id(run)}-checkpoint"
            with self._session_for(seq) as session:
                if session is not None:
                    session.artifact(Path(run.dir) / path, name, aliases)
                    session.mark(seq, time)

    @hookimpl
    def on_alert(self, level: str, title: str, text: str, seq: int, time: float) -> None:
        """W&B's own alert."""
        with self._session_for(seq) as session:
            if session is not None:
                session.alert(title, text, level)
                session.mark(seq, time)

    @hookimpl
    def on_run_end(self, status: str, seq: int, time: float) -> None:
        """Close the run, unless it is the user's."""
        with self._session_for(seq) as session:
            if session is None:
                return
            session.wandb_run.summary["losslog/status"] = status
            session.mark(seq, time)
            if not self.near:
                self._session = None
                session.finish(status)
                self._finished = clock.monotonic()

    @hookimpl
    def on_flush(self) -> int | None:
        """None where every row (after the end: everything) is in the local file, else the last that is.

        wandb-core may still be writing when ``finish`` has returned, and does not go on when this process ends.
        """
        if self._file is None:
            return None
        self._have = max(self._have, self._file.read())
        if self._session is None and not self._file.ended and clock.monotonic() - self._finished < FINISH_SECONDS:
            return min(self._have, self._sent - 1)
        return None if self._have >= self._sent or self._session is None else self._have

    def _log(self, series: Mapping[str, float], axis: str, x: int | None, seq: int, time: float) -> None:
        with self._session_for(seq) as session:
            if session is not None and series:
                session.log(series, axis, x, seq, time)

    @contextlib.contextmanager
    def _session_for(self, seq: int) -> Iterator[Session | None]:
        """The session for the record ``seq``, opened at its first use; None where it was given that record already.

        Raises:
            BackendUnavailable: wandb-core died; the next call starts another.
        """
        if seq <= self._sent:
            yield None
            return
        try:
            session = self._open()
            yield None if seq <= self._sent else session
            self._sent = max(self._sent, seq)  # a raising hook does not come here: its record is skipped by the lane
        except ConnectionError as error:
            if self.near:
                raise RuntimeError("the wandb-core of the run that reuse=True wrote into has died") from error
            self._session = None
            if self._service is service():  # not one that was started since
                forget_service()
            raise BackendUnavailable("wandb-core has died and is started again") from error

    def _open(self) -> Session | None:
        """The session; None for a plugin that was never started."""
        if self._session is None and self._start is not None:
            self._session = self._reused() if self.near else self._opened(self._start)
        return self._session

    def _opened(self, start: Mapping[str, Any]) -> Session:
        run, files = start["run"], self._files()
        arguments = {
            **self._given,
            "project": self._project(),
            "name": self._given["name"] or from_environment("run_name") or run.id,
            "config": start["config"],
            # a first file is not a resumption: rows that a later sync sends again keep their step in W&B
            "resume": "allow" if files else None,
        }
        self._service = service()
        session = open_session(Path(run.dir), _wandb_id(run), self._mode, self._settings, arguments)
        self._have, self._file = _highest(files), session.file
        if (
            _killed_online(files) and not session.wandb_run.offline
        ):  # what was not uploaded is lost: only the server knows
            summary: Any = session.wandb_run.summary
            self._have = int(summary.get(SEQ, -1))
        self._sent = self._have
        return session

    def _reused(self) -> Session:
        live = _live_run()
        if live is None:
            raise RuntimeError("the wandb.run that reuse=True wrote into is finished: log later rows without reuse")
        return Session(live, None)

    def _files(self) -> list[LocalFile]:
        """What is on this disk of this run in this project."""
        run = self._start["run"] if self._start is not None else None
        files = local_files(Path(run.dir), _wandb_id(run)) if run is not None else []
        return [file for file in files if file.project == self._project()] if files else []

    def _project(self) -> str:
        name = self._start["name"] if self._start is not None else None
        return str(self._given["project"] or from_environment("project") or _as_project(name or "losslog"))


def _highest(files: list[LocalFile]) -> int:
    return max((file.seq for file in files), default=-1)


def _killed_online(files: list[LocalFile]) -> bool:
    return bool(files) and not files[-1].offline and not files[-1].ended


def _live_run() -> Any:
    """The user's live run in this process, or None."""
    return getattr(sys.modules.get("wandb"), "run", None)


def _as_project(name: str) -> str:
    """A run's name without what W&B refuses in a project's; one that the user gave for it is left to W&B to refuse."""
    return _NOT_IN_PROJECT.sub("-", name)[:128].strip(" -") or "losslog"


def _wandb_id(run: Any) -> str:
    """The run's id in the letters that W&B allows."""
    return _NOT_IN_ID.sub("-", run.id)[:64]
