"""One W&B run that is open: how it is opened, what its axes are, how it is closed.

Runs on the plugin's lane, in the follower process. Contract:

- `open_session` never blocks for the network longer than a probe; where online cannot be, it is offline and says so.
- Offline means offline: no name is resolved, no address outside this machine is tried.
- ``step=`` is never passed: W&B drops rows whose step goes back, and two axes cannot share one counter.
- Settings are made afresh for every run: ``wandb.init`` changes the object it is given.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from losslog_wandb.host import why_offline
from losslog_wandb.localfiles import SEQ, LocalFile, local_files
from losslog_wandb.pictures import overlaid

if TYPE_CHECKING:
    import wandb

    from losslog.detection.drawing import Sheet

AXES: Final = {"epoch": "epoch", "step": "batch/global_step"}  # what x is called in a row
SUMMARIES: Final = (("mAP", "max,last"), ("loss/val", "min,last"))
LEVELS: Final = {"info": "INFO", "warning": "WARN", "error": "ERROR"}
FINISH_SECONDS: Final = 5.0
REDACTED: Final = "[redacted]"

logger = logging.getLogger("losslog")


class Session:
    """An open run.

    Attributes:
        wandb_run: the vendor's run.
        file: its local file, or None for a disabled run and for one that is the user's.
    """

    def __init__(self, wandb_run: wandb.Run, file: LocalFile | None) -> None:
        self.wandb_run = wandb_run
        self.file = file
        self._defined: set[str] = set()
        for name in (*AXES.values(), SEQ):
            wandb_run.define_metric(name, hidden=True)
        self._define("batch/*", "step")
        for glob in ("loss/train*", "loss/val*", "mAP/*", "mAP_class/*", "lr", "lr_group/*", "eval/*"):
            self._define(glob, "epoch")

    def log(self, series: Mapping[str, float], axis: str, x: int, seq: int, time: float) -> None:
        """One row: the series, their x value, and the record it comes from."""
        for tag in series:
            self._define(tag if "*" not in tag else "", axis)
        self.wandb_run.log({**series, AXES[axis]: x, SEQ: seq, "_timestamp": time})

    def images(self, tag: str, sheet: Sheet, x: int, seq: int, time: float) -> None:
        """One row with one sheet: its boxes and masks are the vendor's own, so that its page switches classes."""
        self._define(tag, "epoch")
        self.wandb_run.log({tag: overlaid(sheet), AXES["epoch"]: x, SEQ: seq, "_timestamp": time})

    def mark(self, seq: int, time: float) -> None:
        """A row without values: everything up to ``seq`` was delivered."""
        self.wandb_run.log({SEQ: seq, "_timestamp": time})

    def alert(self, title: str, text: str, level: str) -> None:
        """The vendor's own alert; losslog's keys already keep it from being raised twice."""
        self.wandb_run.alert(title=title, text=text or title, level=LEVELS[level], wait_duration=0)

    def artifact(self, path: Path, name: str, aliases: list[str]) -> None:
        """Upload a file as a model artifact; it is not copied, so it must stay until it was uploaded."""
        import wandb

        artifact = wandb.Artifact(name, type="model")
        artifact.add_file(str(path), policy="immutable")
        self.wandb_run.log_artifact(artifact, aliases=aliases)

    def finish(self, status: str) -> None:
        """Close the run; what is not uploaded within the bound stays for ``wandb sync``."""
        try:
            self.wandb_run.finish(exit_code=0 if status in ("finished", "stopped") else 1)
        except TimeoutError:
            place = _quoted(self.file.path.parent) if self.file else "DIR"
            logger.warning("wandb: not everything was uploaded; later: wandb sync --yes --include-online %s", place)

    def _define(self, tag: str, axis: str) -> None:
        """Put a series on its axis, once; a series of a known group is there already."""
        if not tag or {tag, _glob(tag)} & self._defined:
            return
        self._defined.add(tag)
        summary = next((summary for prefix, summary in SUMMARIES if tag.startswith(prefix)), None)
        self.wandb_run.define_metric(tag, step_metric=AXES[axis], summary=summary)


def _glob(tag: str) -> str:
    """The group that a series would belong to. Two globs on one tag are taken in no fixed order, so there is one."""
    for prefix in ("loss/train", "loss/val"):
        if tag.startswith(prefix):
            return prefix + "*"
    return tag.partition("/")[0] + "/*" if "/" in tag else tag


def open_session(
    folder: Path, wandb_id: str, mode: str | None, settings: Mapping[str, Any], arguments: Mapping[str, Any]
) -> Session:
    """Open the run, or open it again.

    Args:
        folder: the run folder.
        wandb_id: the run's id in W&B.
        mode: ``online``, ``offline``, ``disabled`` or None for what the environment says.
        settings: fields of ``wandb.Settings`` from the user.
        arguments: of ``wandb.init``.

    Returns:
        The session, offline where online was wanted and cannot be.
    """
    _own_service()
    if mode == "offline":  # before wandb is imported, which reads it; offline it would still resolve the host's name
        os.environ["WANDB_ERROR_REPORTING"] = "false"
    import wandb

    wanted = _own_settings(folder)
    mode = mode or {"dryrun": "offline", "run": "online"}.get(wanted.mode, wanted.mode)
    reason = None
    if mode == "online":
        reason = _unsynced(folder, wandb_id) or why_offline(
            str(settings.get("base_url", wanted.base_url)),
            settings.get("api_key", wanted.api_key),
            settings.get("identity_token_file", wanted.identity_token_file),
        )
    if mode == "online" and reason is None:
        try:
            return _start(folder, wandb_id, "online", settings, arguments)
        except wandb.errors.Error as error:  # no connection, login refused: wandb never goes offline by itself
            reason = " ".join(str(error).split())[:200]
            if wandb.run is None:  # a run of the user's in this process would end
                forget_service()  # this wandb-core holds the run's id for good
    if mode != "disabled":
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        mode = "offline"
    session = _start(folder, wandb_id, mode, settings, arguments)
    if session.file is not None:
        logger.info(
            "wandb: offline%s; upload later: wandb sync --yes %s",
            f" ({reason})" if reason else "",
            f"{_quoted(folder / 'wandb')}/offline-run-*",
        )
    return session


def _start(
    folder: Path, wandb_id: str, mode: str, settings: Mapping[str, Any], arguments: Mapping[str, Any]
) -> Session:
    import wandb

    wandb_run = wandb.init(
        **arguments,
        id=wandb_id,
        dir=str(folder),
        mode=mode,  # type: ignore[arg-type]  # one of its literals
        reinit="create_new",
        allow_val_change=True,
        settings=wandb.Settings(**_defaults() | dict(settings)),
    )
    if wandb_run.disabled:
        return Session(wandb_run, None)
    if mode == "online":
        logger.info("wandb: online, %s", wandb_run.url)
    return Session(wandb_run, LocalFile(Path(wandb_run.settings.sync_file)))


def _defaults() -> dict[str, Any]:
    """Our settings, and what wandb would have seen in the training process."""
    ours: dict[str, Any] = {
        "silent": True,
        "console": "off",
        "save_code": False,
        "init_timeout": 15.0,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
        "x_transaction_log_flush_interval": 1.0,  # at the default of 15 s a killed follower leaves an empty file
    }
    parent, program = os.environ.get("LOSSLOG_PARENT_PID"), os.environ.get("LOSSLOG_PROGRAM")
    if parent:
        ours |= {"x_stats_pid": int(parent), "x_stats_track_process_tree": True}
    if program:
        ours |= {"program": os.path.basename(program), "program_abspath": os.path.abspath(program)}
    here = Path.cwd()
    repository = next((place for place in (here, *here.parents) if (place / ".git").exists()), None)
    if repository:  # wandb would look from the run folder, which often lies elsewhere
        ours["git_root"] = str(repository)
    return ours


def from_environment(setting: str, folder: Path) -> str | None:
    """What wandb itself makes of ``WANDB_...`` and its settings files."""
    return getattr(_own_settings(folder), setting, None)


def _own_settings(folder: Path) -> Any:
    """What wandb takes from its settings files and the environment, without a file that lies in the run's own folders.

    wandb reads ``wandb/settings`` in the working directory, once. Where that came with the run, its sender would choose
    the host, and the account.
    """
    from wandb.sdk.wandb_setup import singleton

    here = Path.cwd()
    if folder in (here, *here.parents) or here in (folder.parent, folder.parent.parent):
        with contextlib.chdir(Path(__file__).parent):
            return singleton().settings
    return singleton().settings


def service() -> object:
    """What stands for the wandb-core of this process."""
    from wandb.sdk.wandb_setup import singleton

    return singleton()


def has_died(service: object) -> bool:
    """Whether a wandb-core that this process started is gone; False where that cannot be told."""
    process = service
    for name in ("_connection", "_proc", "_process"):  # 0.31 has no public way
        process = getattr(process, name, None)
    poll = getattr(process, "poll", None)
    return poll is not None and poll() is not None


def forget_service() -> None:
    """Make wandb start another wandb-core at the next init. 0.31 has no public way to that after one has died."""
    import wandb
    from wandb.sdk import wandb_setup

    with contextlib.suppress(ConnectionError):
        wandb.teardown()
    wandb_setup._singleton = None
    os.environ.pop("WANDB_SERVICE", None)


def _own_service() -> None:
    """In the follower, forget the training process's wandb-core: it ends with the user's own runs."""
    parent = os.environ.get("LOSSLOG_PARENT_PID")
    if parent and parent != str(os.getpid()):
        os.environ.pop("WANDB_SERVICE", None)


def _unsynced(folder: Path, wandb_id: str) -> str | None:
    """An offline file that was not uploaded: rows after it must queue behind it."""
    waiting = [file for file in local_files(folder, wandb_id) if file.offline and not file.synced]
    return "earlier rows of this run are not uploaded yet" if waiting else None


def _quoted(path: Path) -> str:
    """As a shell takes it for one word."""
    return f'"{path}"' if " " in str(path) else str(path)


def usable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those whose value was redacted in the journal: a replay finds them in the environment."""
    return {name: value for name, value in settings.items() if value != REDACTED}
