"""The plugin: the numbers of a record become one row.

Runs on the plugin's lane, in losslog's follower process; with ``reuse=True``, in the training process. Contract:

- wandb is imported when the first record comes, not before; the W&B run is opened then too, so that a lane with
  nothing to deliver opens nothing.
- Every row carries ``losslog/seq``. What W&B has is read back from its own local file (from the server for an online
  run whose process was killed), and a record that is there is skipped: a kill neither loses nor doubles rows.
- What `WandbPlugin.on_flush` says is durable is in that file, which wandb-core writes once a second. What a wandb-core
  that died was handed, and did not write, comes again.
"""

from __future__ import annotations

import re
import sys
import time as clock
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from losslog import BackendUnavailable, hookimpl
from losslog.detection.sheets import sheet_of, tag_of
from losslog_wandb.localfiles import SEQ, LocalFile, local_files
from losslog_wandb.options import check_mode, check_settings, vendor_folder
from losslog_wandb.session import (
    Session,
    forget_service,
    from_environment,
    has_died,
    open_session,
    service,
    usable,
)

PATIENCE: Final = 60.0  # seconds that wandb-core may take to write the end of a run
_NOT_IN_ID: Final = re.compile(r"[^A-Za-z0-9_.-]")
_NOT_IN_PROJECT: Final = re.compile(r"[/\\#?%:\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Told:
    """A run that is to be opened."""

    run: Any
    name: str
    config: Mapping[str, Any]


class WandbPlugin:
    """Every series of a run in Weights & Biases.

    Args:
        project: W&B project. None: ``WANDB_PROJECT``, else the run's name, without what W&B refuses in one.
        entity: user or team. None: ``WANDB_ENTITY``, else the account's default.
        name: display name. None: ``WANDB_NAME``, else the run's name and id.
        group: W&B group. None: ``WANDB_RUN_GROUP``.
        tags: W&B tags.
        mode: ``online``, ``offline`` or ``disabled``. None: ``WANDB_MODE``, else online where a key is stored and the
            host answers, offline otherwise.
        reuse: write into the user's own live ``wandb.run`` instead of a run of ours. This costs a thread in the
            training process, and rows that the user logs with a ``step=`` below W&B's own counter are dropped by W&B.
        checkpoints: upload checkpoints as model artifacts.
        images: log a sheet of each record of images, with boxes and masks.
        **settings: any field of ``wandb.Settings``.

    Raises:
        losslog.NotReady: wandb is not installed.
        TypeError, ValueError: an option is not what it may be.
    """

    consent_variables = ("WANDB_MODE",)
    journal_options = ("project", "name", "group", "tags", "mode=offline", "checkpoints", "images")
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
        images: bool = True,
        **settings: Any,
    ) -> None:
        folder = vendor_folder()
        check_mode(mode)
        check_settings(settings, folder)
        if isinstance(tags, str):
            raise TypeError(f"wandb option tags={tags!r}: pass a list of strings")
        if reuse and _live_run() is None:
            raise ValueError("wandb option reuse=True needs a live wandb.run: call wandb.init() first, or leave it out")
        if not isinstance(images, bool):
            raise TypeError(f"wandb option images={images!r}: pass True or False")
        self.near, self._images = reuse, images
        self._mode, self._checkpoints, self._settings = mode, checkpoints, usable(settings)
        self._given: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "name": name,
            "group": group,
            "tags": list(tags) or None,
        }
        self._told: Told | None = None
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
        self._told = Told(run, name, config)
        if self._session is not None:
            kept: Any = self._session.wandb_run.config
            kept.update(dict(config), allow_val_change=True)

    def delivered_upto(self, run: Any) -> int | None:
        """The last seq that W&B has, or -1."""
        if self.near or self._mode == "disabled":
            return None
        if self._session is not None and self._file is not None:  # what it was handed is on its way
            self._have = max(self._have, self._file.read())
            return self._have
        files = self._files()
        if _killed_online(files):
            self._open()
        else:
            self._have = self._sent = _highest(files)
        return self._have

    @hookimpl
    def on_scalars(self, series: Mapping[str, float], axis: str, x: int, seq: int, time: float) -> None:
        """A row at the step or the epoch."""
        self._give(seq, lambda session: session.log(series, axis, x, seq, time))

    @hookimpl
    def on_checkpoint(self, epoch: int | None, path: str, run: Any, seq: int, time: float) -> None:
        """An artifact, where asked for."""

        def upload(session: Session) -> None:
            aliases = [] if epoch is None else [f"epoch_{epoch:03d}"]
            session.artifact(Path(run.dir) / path, f"{_wandb_id(run)}-checkpoint", aliases)
            session.mark(seq, time)

        if self._checkpoints:
            self._give(seq, upload)

    @hookimpl
    def on_images(
        self, epoch: int, split: str, name: str, images: Sequence[Mapping[str, Any]], seq: int, time: float
    ) -> None:
        """A sheet at the epoch."""
        sheet = sheet_of(split, name, epoch, images, both=False) if self._images and seq > self._sent else None
        if sheet is not None:
            self._give(seq, lambda session: session.images(tag_of(split, name), sheet, epoch or 0, seq, time))

    @hookimpl
    def on_alert(self, level: str, title: str, text: str, seq: int, time: float) -> None:
        """W&B's own alert."""

        def alert(session: Session) -> None:
            session.alert(title, text, level)
            session.mark(seq, time)

        self._give(seq, alert)

    @hookimpl
    def on_run_end(self, status: str, seq: int, time: float) -> None:
        """Close the run, unless it is the user's."""

        def end(session: Session) -> None:
            session.wandb_run.summary["losslog/status"] = status
            if seq > self._sent:
                session.mark(seq, time)
            if not self.near:
                session.finish(status)
                self._session, self._finished = None, clock.monotonic()

        self._give(seq, end, last=True)

    @hookimpl
    def on_flush(self) -> int | None:
        """None where every row (after the end: everything) is in the local file, else the last that is.

        wandb-core may still be writing when ``finish`` has returned, and does not go on when this process ends.

        Raises:
            BackendUnavailable: it died, and did not write all that it was handed.
        """
        if self._file is None:
            return None
        gone = has_died(self._service)  # asked before the file is read, which cannot grow after
        self._have = max(self._have, self._file.read())
        if self._session is not None:
            if self._have >= self._sent:
                return None
        elif self._file.ended:
            return None
        elif clock.monotonic() - self._finished > PATIENCE:
            gone = True
        if gone:
            raise self._lost()
        return min(self._have, self._sent - (self._session is None))

    def _give(self, seq: int, write: Callable[[Session], None], *, last: bool = False) -> None:
        """Write the record ``seq``, unless W&B has it; the ``last`` one, too, where a run is open.

        Raises:
            BackendUnavailable: wandb-core died; the next call starts another.
        """
        if seq <= self._sent and not (last and self._session is not None):
            return
        try:
            session = self._open()
            if session is None or (seq <= self._sent and not last):  # what W&B has may be known only now
                return
            write(session)
            self._sent = max(self._sent, seq)  # not where it raised: that record is skipped by the lane, or comes again
        except Exception as error:
            if not isinstance(error, ConnectionError) and not has_died(self._service):
                raise
            if self.near:
                raise RuntimeError("the wandb-core of the run that reuse=True wrote into has died") from error
            raise self._lost() from error

    def _lost(self) -> BackendUnavailable:
        """wandb-core died: what it did not write must come again."""
        self._session, self._file, self._sent = None, None, -1
        if self._service is service():  # not one that was started since
            forget_service()
        return BackendUnavailable("wandb-core has died and is started again")

    def _open(self) -> Session | None:
        """The session; None for a plugin that was never started."""
        if self._session is None and self._told is not None:
            self._session = self._reused() if self.near else self._opened(self._told)
        return self._session

    def _opened(self, told: Told) -> Session:
        run, files = told.run, self._files()
        arguments = {
            **self._given,
            "project": self._project(),
            "name": self._given["name"]
            or from_environment("run_name", Path(run.dir))
            or f"{told.name} {run.id}".strip(),
            "config": dict(told.config),
            # a first file is not a resumption: rows that a later sync sends again keep their step in W&B
            "resume": "allow" if files else None,
        }
        self._service = service()
        session = open_session(Path(run.dir), _wandb_id(run), self._mode, self._settings, arguments)
        self._service = service()  # where online was refused, another than before
        self._have, self._file = _highest(files), session.file
        if _killed_online(files) and not session.wandb_run.offline:
            summary: Any = session.wandb_run.summary  # what was not uploaded is lost: only the server knows
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
        if self._told is None:
            return []
        files = local_files(Path(self._told.run.dir), _wandb_id(self._told.run))
        return [file for file in files if file.project == self._project()] if files else []

    def _project(self) -> str:
        if self._told is None:
            return str(self._given["project"] or "losslog")
        stored = from_environment("project", Path(self._told.run.dir))
        return str(self._given["project"] or stored or _as_project(self._told.name or "losslog"))


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
