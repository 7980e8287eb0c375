"""The plugin: the numbers of a record become metrics, sent many at once.

Runs on the plugin's lane, in losslog's follower process. Contract:

- Hooks gather; `MlflowPlugin.on_flush` sends, and a hook that finds very much gathered. When it raises, what was
  gathered is forgotten, since it will come again.
- The run is not told of (None), `Told`, or `Found` in the store; a flush is what leads from one to the next.
- Every point carries its record's own time, so that sending it twice adds nothing.
- Only ``MlflowClient`` is used: the user's own active run is not touched.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from losslog import BackendUnavailable, NotReady, hookimpl
from losslog.detection.sheets import sheet_of, tag_of
from losslog_mlflow.answers import hide_login, never
from losslog_mlflow.batch import DESCRIPTION, Batch
from losslog_mlflow.names import key_of
from losslog_mlflow.pictures import Picture, Pictures
from losslog_mlflow.runs import RUN_ID, experiment_id, find_or_create, new_params, origin_tags
from losslog_mlflow.store import already_exists, connect, reaching
from losslog_mlflow.uploads import Uploads

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_IMAGES: Final = 4  # sheets gathered, some megabytes each
MOST: Final = 5000  # points gathered; a store takes some thousand a second, and one call should take a second or two
STATUS: Final = {"finished": "FINISHED", "stopped": "KILLED"}  # any other is FAILED

logger = logging.getLogger("losslog")


@dataclass(frozen=True)
class Told:
    """A run that is to be found in the store, or made."""

    run: Any
    name: str
    config: Mapping[str, Any]
    resumed: bool
    time: float


@dataclass
class Found:
    """The run in the store."""

    run: Any
    id: str
    running: bool


class MlflowPlugin:
    """Every series of a run in MLflow.

    Args:
        tracking_uri: the store. None: ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` beside the run folder.
        experiment: its name. None: ``MLFLOW_EXPERIMENT_NAME``, else the run's name.
        experiment_id: its id; ``experiment`` goes before it. None: ``MLFLOW_EXPERIMENT_ID``.
        run_name: display name. None: the run's name and id.
        run_id: log into this existing run, which is yours: it is not ended.
        parent_run_id: the run becomes a child of this one.
        tags: more tags.
        checkpoints: upload checkpoints as artifacts.
        register: name of a registered model; every checkpoint becomes a version of it. Implies ``checkpoints``.
        images: store a sheet of each record of images.

    Raises:
        losslog.NotReady: mlflow is not installed.
        TypeError, ValueError: an option is not what it may be.
    """

    consent_variables = ("MLFLOW_TRACKING_URI",)
    journal_options = ("experiment", "run_name", "tags", "checkpoints", "images")  # the rest says where data go
    flush_every = 1.5

    def __init__(
        self,
        *,
        tracking_uri: str | None = None,
        experiment: str | None = None,
        experiment_id: str | int | None = None,
        run_name: str | None = None,
        run_id: str | None = None,
        parent_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        checkpoints: bool = False,
        register: str | None = None,
        images: bool = True,
    ) -> None:
        spec = importlib.util.find_spec("mlflow")
        if spec is None or spec.origin is None:
            raise NotReady("mlflow is not installed: pip install mlflow")
        if tracking_uri is not None and "://" not in tracking_uri and not tracking_uri.startswith("databricks"):
            raise ValueError(
                f"mlflow option tracking_uri={tracking_uri!r}: use http://host:port or sqlite:////path/to/mlflow.db"
            )
        if tags is not None and not isinstance(tags, Mapping):
            raise TypeError(f"mlflow option tags={tags!r}: pass a dict of strings")
        if not isinstance(images, bool):
            raise TypeError(f"mlflow option images={images!r}: pass True or False")
        self._images, self._there = images, Pictures()
        self._uri = tracking_uri
        self._experiment = experiment
        self._experiment_id = None if experiment_id is None else str(experiment_id)
        self._run_name, self._given_run, self._parent = run_name, run_id, parent_run_id
        self._tags = {str(name): str(value) for name, value in (tags or {}).items()}
        self._checkpoints, self._model = checkpoints or register is not None, register
        self._state: Told | Found | None = None
        self._client: MlflowClient | None = None
        self._said: set[str] = set()
        self._batch, self._uploads = Batch(), Uploads()
        self._description = ""

    @staticmethod
    def live_options() -> dict[str, Any]:
        """Options from the user's active fluent run in this process: ours becomes its child. Never imports mlflow."""
        mlflow: Any = sys.modules.get("mlflow")
        active = mlflow.active_run() if mlflow is not None else None
        if active is None:
            return {}
        return {
            "tracking_uri": hide_login(mlflow.get_tracking_uri()),
            "experiment_id": active.info.experiment_id,
            "parent_run_id": active.info.run_id,
        }

    @hookimpl
    def on_run_start(
        self,
        name: str,
        config: Mapping[str, Any],
        epochs: int | None,
        steps_per_epoch: int | None,
        resumed: bool,
        run: Any,
        time: float,
    ) -> None:
        """Remember what the run is; it is looked for in the store at the next flush."""
        planned = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
        config = {key: value for key, value in planned.items() if value is not None} | dict(config)
        self._state = Told(run, name, config, resumed, time)
        self._batch.end = None
        self._connected(run)  # now, since a new sqlite store takes seconds to make

    @hookimpl
    def on_scalars(self, series: Mapping[str, float], x: int, time: float) -> None:
        """Points at the step or the epoch."""
        self._batch.add(series, x, time)
        if len(self._batch.points) >= MOST:
            self.on_flush()

    @hookimpl
    def on_images(self, epoch: int, split: str, name: str, images: Sequence[Mapping[str, Any]], time: float) -> None:
        """A sheet at the epoch."""
        sheet = sheet_of(split, name, epoch, images) if self._images else None
        if sheet is not None:
            self._batch.images.append(Picture(key_of(tag_of(split, name)), epoch or 0, int(time * 1000), sheet.drawn()))
            if len(self._batch.images) >= MOST_IMAGES:
                self.on_flush()

    @hookimpl
    def on_checkpoint(self, path: str, run: Any, seq: int) -> None:
        """An artifact, where asked for."""
        if self._checkpoints:
            self._uploads.waiting[seq] = Path(run.dir) / path

    @hookimpl
    def on_alert(self, level: str, title: str, text: str, epoch: int | None, key: str) -> None:
        """A tag and a part of the run's description: MLflow has no alerts."""
        place = "" if epoch is None else f" (epoch {epoch})"
        self._batch.alerts.append(f"**{title}**{place}\n\n{text}".rstrip())
        self._batch.note(f"losslog.alert.{key}", f"{level}: {title}{place}\n{text}".rstrip())

    @hookimpl
    def on_run_end(self, status: str, error: str | None, time: float) -> None:
        """The run's status, after everything else was sent."""
        self._batch.end = (STATUS.get(status, "FAILED"), int(time * 1000))
        self._batch.note("losslog.status", status)
        if error:
            self._batch.note("losslog.error", error)

    @hookimpl
    def on_flush(self) -> int | None:
        """Send what was gathered; None, or the last record before a checkpoint that waits for the server."""
        batch, self._batch = self._batch, Batch(self._batch.at_once)
        if self._state is None:
            return None
        try:
            with reaching(self._shown):
                found = self._send(self._connected(self._state.run), batch)
            self._show(found, batch.images)
        except BaseException:
            self._uploads.forget()
            raise
        self._batch.at_once = batch.at_once

        def upload(path: Path) -> None:
            with reaching(self._shown):
                self._upload(self._connected(found.run), found.id, path)

        return self._uploads.work(upload, lambda error, name: never(self._shown, error, name))

    def refused(self) -> dict[int, str]:
        """Checkpoints that the server will never take, since this was last asked; by seq, with the reason."""
        given_up, self._uploads.refused = self._uploads.refused, {}
        return given_up

    def _show(self, found: Found, images: Sequence[Picture]) -> None:
        """Send sheets; one that the server will never take holds nothing up."""
        try:
            with reaching(self._shown):
                self._there.send(self._connected(found.run), found.id, images)
        except BackendUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever else it is, it is about these pictures
            logger.warning("mlflow: images are left out: %s", never(self._shown, error, "a sheet"))

    def _send(self, client: MlflowClient, batch: Batch) -> Found:
        ours = not self._given_run
        if isinstance(self._state, Told):
            self._state = self._find(client, self._state)
        assert self._state is not None
        found = self._state
        if ours and not found.running and batch.end is None and (batch.points or batch.images):
            client.update_run(found.id, status="RUNNING")
            found.running = True
        self._say_renamed(batch)
        if ours and batch.alerts:
            self._description = batch.describe(self._description)
        batch.send(client, found.id)
        if ours and batch.end is not None:
            client.set_terminated(found.id, *batch.end)
            found.running = False
        return found

    def _say_renamed(self, batch: Batch) -> None:
        for tag, name in batch.renamed.items():
            if tag not in self._said:
                self._said.add(tag)
                logger.info("mlflow: %r is not a name that MLflow takes; the series is %r there", tag, name)

    def _connected(self, run: Any) -> MlflowClient:
        if self._client is None:
            uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_own_store(run).as_posix()}"
            self._client = connect(uri)
            self._shown = hide_login(uri)
        return self._client

    def _find(self, client: MlflowClient, told: Told) -> Found:
        """Find or make the run, and write what is new in its config."""
        first = Batch()
        if self._given_run:
            stored = client.get_run(self._given_run)
            first.note(RUN_ID, told.run.id)
        else:
            self._check_parent(client)
            tags = origin_tags() | self._tags | {RUN_ID: told.run.id}
            if self._parent:
                tags["mlflow.parentRunId"] = self._parent
            experiment = self._experiment_of(client, told)
            stored = find_or_create(client, experiment, tags, self._run_name or f"{told.name} {told.run.id}", told.time)
            self._description = stored.data.tags.get(DESCRIPTION, "")
        if told.resumed:
            first.note("losslog.resumed", "true")
        run_id = stored.info.run_id
        first.params, changed = new_params(told.config, stored.data.params)
        first.tags |= changed
        first.send(client, run_id)
        if run_id not in self._said:
            self._said.add(run_id)
            logger.info("mlflow: run %s, open with: %s", run_id, self._page(stored.info.experiment_id, run_id))
        return Found(told.run, run_id, stored.info.status == "RUNNING")

    def _check_parent(self, client: MlflowClient) -> None:
        """Forget a parent that is in another store than this run."""
        if self._parent is None:
            return
        from mlflow.exceptions import MlflowException

        try:
            client.get_run(self._parent)
        except MlflowException as error:
            if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                raise
            logger.warning(
                "mlflow: the parent run %s is not at %s: this run is not its child", self._parent, self._shown
            )
            self._parent = self._experiment_id = None

    def _experiment_of(self, client: MlflowClient, told: Told) -> str:
        by_id = self._experiment_id or os.environ.get("MLFLOW_EXPERIMENT_ID")
        if by_id and not self._experiment:
            return by_id
        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or told.name or "losslog"
        own = _own_store(told.run)
        artifacts = own.with_name("mlartifacts") if self._shown == f"sqlite:///{own.as_posix()}" else None
        return experiment_id(client, name, artifacts)

    def _page(self, experiment: str, run_id: str) -> str:
        if self._shown.startswith("http"):
            return f"{self._shown}/#/experiments/{experiment}/runs/{run_id}"
        return f"mlflow ui --backend-store-uri {_quoted(self._shown)}"

    def _upload(self, client: MlflowClient, run_id: str, file: Path) -> None:
        client.log_artifact(run_id, str(file), "checkpoints")
        if self._model is None:
            return
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(self._model)
        except MlflowException as error:
            if not already_exists(error):
                raise
        source = f"{client.get_run(run_id).info.artifact_uri}/checkpoints/{file.name}"
        versions = client.search_model_versions(f"run_id = '{run_id}'")
        if all(version.source != source for version in versions):
            client.create_model_version(self._model, source, run_id)


def _quoted(text: str) -> str:
    """As a shell takes it for one word."""
    return f'"{text}"' if " " in text else text


def _own_store(run: Any) -> Path:
    """The sqlite file beside the run folder."""
    return Path(run.dir).absolute().parent / "mlflow.db"
