"""The W&B plugin: records become rows.

Runs on a lane of the follower process (with ``reuse=True``, on a lane of the training process). Contract:

- wandb is imported when the first record comes, not before; the W&B run is opened then too, so that a lane with
  nothing to deliver opens nothing.
- Every row carries ``losslog/seq``. What was delivered is read back from W&B's own local file (from the server for an
  online run whose process was killed), so that a kill neither loses nor doubles rows.
- ``on_flush`` is durable when the row is in that file, which wandb-core writes once a second.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from losslog import batch_series, epoch_series, eval_series, hookimpl
from losslog_wandb.localfiles import SEQ, local_files
from losslog_wandb.options import check_mode, check_settings, vendor_folder
from losslog_wandb.session import EPOCH, STEP, Session, highest, open_session, usable

_NOT_IN_ID: Final = re.compile(r"[^A-Za-z0-9_.-]")


class WandbPlugin:
    """Every series of a run in Weights & Biases.

    Args:
        project: W&B project. None: ``WANDB_PROJECT``, else the run's name.
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
        self._given = {"project": project, "entity": entity, "name": name, "group": group, "tags": list(tags) or None}
        self._start: dict[str, Any] | None = None
        self._session: Session | None = None
        self._sent = self._durable = -1

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
        files = local_files(Path(run.dir), _wandb_id(run))
        self._durable = highest(files)
        if files and not files[-1].offline and not files[-1].ended:  # killed while online: only the server knows
            session = self._open()
            if session is not None and session.wandb_run.resumed:
                summary: Any = session.wandb_run.summary
                self._durable = int(summary.get(SEQ, -1))
        self._sent = self._durable
        return self._durable

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
        session = self._open() if self._checkpoints else None
        if session is None:
            return
        aliases = [] if epoch is None else [f"epoch_{epoch:03d}"]
        session.artifact(Path(run.dir) / path, f"{_wandb_id(run)}-checkpoint", aliases)
        self._mark(session, seq, time)

    @hookimpl
    def on_alert(self, level: str, title: str, text: str, seq: int, time: float) -> None:
        """W&B's own alert."""
        session = self._open()
        if session is not None:
            session.alert(title, text, level)
            self._mark(session, seq, time)

    @hookimpl
    def on_run_end(self, status: str, seq: int, time: float) -> None:
        """Close the run, unless it is the user's."""
        session = self._open()
        if session is None:
            return
        session.wandb_run.summary["losslog/status"] = status
        self._mark(session, seq, time)
        if not self.near:
            session.finish(status)
            self._session, self._durable = None, seq

    @hookimpl
    def on_flush(self) -> int | None:
        """None where every row is in the local file, else the last that is."""
        if self._session is None or self._session.file is None:
            return None
        self._durable = max(self._durable, self._session.file.read())
        return None if self._durable >= self._sent else self._durable

    def _log(self, series: Mapping[str, float], axis: str, x: int | None, seq: int, time: float) -> None:
        session = self._open()
        if session is not None and series:
            session.log(series, axis, x, seq, time)
            self._sent = seq

    def _mark(self, session: Session, seq: int, time: float) -> None:
        session.mark(seq, time)
        self._sent = seq

    def _open(self) -> Session | None:
        """The session, opened at its first use; None for a plugin that was never started."""
        if self._session is None and self._start is not None:
            self._session = self._reused() if self.near else self._opened(self._start)
        return self._session

    def _opened(self, start: Mapping[str, Any]) -> Session:
        run = start["run"]
        arguments = {"project": start["name"] or "losslog", "name": run.id, "config": start["config"]}
        return open_session(Path(run.dir), _wandb_id(run), self._mode, self._settings, self._given, arguments)

    def _reused(self) -> Session:
        live = _live_run()
        if live is None:
            raise RuntimeError("the wandb.run that reuse=True wrote into is finished: log later rows without reuse")
        return Session(live, None)


def _live_run() -> Any:
    """The user's live run in this process, or None."""
    return getattr(sys.modules.get("wandb"), "run", None)


def _wandb_id(run: Any) -> str:
    """The run's id in the letters that W&B allows."""
    return _NOT_IN_ID.sub("-", run.id)[:64]
