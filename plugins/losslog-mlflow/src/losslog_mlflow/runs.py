"""The run in MLflow: found by losslog's id or made, with its tags and params.

Runs on the plugin's lane. Contract:

- `find_or_create` may be repeated at any time, also after it failed half-way: the tag ``losslog.run_id`` tells whether
  the run is there already.
- A param is written once; where a resumed run has another value, that goes to a tag ``losslog.config.<name>``.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from losslog_mlflow.names import clean, flatten
from losslog_mlflow.store import already_exists

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_ID: Final = "losslog.run_id"
LONGEST_PARAM: Final = 6000
LONGEST_TAG: Final = 5000  # what older servers take


def experiment_id(client: MlflowClient, name: str, artifacts: Path | None) -> str:
    """The id of the experiment called ``name``, which is made if it is not there.

    Args:
        client: of the store.
        name: the experiment.
        artifacts: where a new one keeps its artifacts; None: where the server wants.

    Raises:
        ValueError: it was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts.as_uri() if artifacts else None))
        except MlflowException as error:  # another run made it in this moment
            if not already_exists(error):
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage == "deleted":
        raise ValueError(f"the MLflow experiment {name!r} is deleted: restore it, or choose another with experiment=")
    return str(found.experiment_id)


def find_or_create(client: MlflowClient, experiment: str, tags: Mapping[str, str], name: str, time: float) -> Run:
    """The run with the tag ``losslog.run_id`` of ``tags``.

    Args:
        client: of the store.
        experiment: id of the experiment.
        tags: of a new run.
        name: of a new run.
        time: when it started, seconds since the epoch.
    """
    wanted = tags[RUN_ID].replace("'", "")
    found = client.search_runs([experiment], f"tags.`{RUN_ID}` = '{wanted}'", order_by=["attributes.start_time ASC"])
    if found:
        return found[0]
    return client.create_run(experiment, start_time=int(time * 1000), tags=dict(tags), run_name=name)


def origin_tags() -> dict[str, str]:
    """Who runs what: the tags that mlflow's own ``start_run`` would have set in the training process."""
    program = os.environ.get("LOSSLOG_PROGRAM", "")
    tags = {"mlflow.source.type": "LOCAL"}
    if program:
        tags["mlflow.source.name"] = program
    with contextlib.suppress(KeyError, OSError):  # in a container a user id may have no name
        tags["mlflow.user"] = getpass.getuser()
    commit = _git_commit(Path(program).parent if program else Path.cwd())
    if commit:
        tags["mlflow.source.git.commit"] = commit
    return tags


def _git_commit(folder: Path) -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def new_params(config: Mapping[str, Any], known: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What of ``config`` is still to be written.

    Args:
        config: nested; what the user passed to the run.
        known: the params that the run has.

    Returns:
        New params, and tags for those whose value is another than the one that cannot be changed.
    """
    params, tags = {}, {}
    for name, value in flatten(config):
        key, text = clean(name), str(value)[:LONGEST_PARAM]
        if key not in known:
            params[key] = text
        elif known[key] != text:
            tags[clean(f"losslog.config.{name}")] = text[:LONGEST_TAG]
    return params, tags
