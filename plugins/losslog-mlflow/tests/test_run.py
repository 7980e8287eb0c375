from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from losslog_mlflow import MlflowPlugin

from losslog.testing import tell

T0 = 1764000000.0
Started = Callable[..., MlflowPlugin]


@pytest.mark.parametrize(
    ("status", "stored"), [("finished", "FINISHED"), ("stopped", "KILLED"), ("failed", "FAILED"), ("crashed", "FAILED")]
)
def test_every_end_has_its_status(started: Started, run: Any, local: Any, status: str, stored: str) -> None:
    plugin = started()
    plugin.on_run_end(status=status, error=None, time=T0 + 60)
    plugin.on_flush()
    info = local.run(run).info
    assert (info.status, info.end_time) == (stored, int(T0 + 60) * 1000)


def test_a_run_is_running_until_its_end(started: Started, run: Any, local: Any) -> None:
    started().on_flush()
    assert local.run(run).info.status == "RUNNING"


def test_a_crashed_run_is_repaired_by_its_end(started: Started, run: Any, local: Any) -> None:
    started().on_flush()  # and then killed
    later = started()
    later.on_run_end(status="crashed", error=None, time=T0 + 60)
    later.on_flush()
    assert local.run(run).info.status == "FAILED"


def test_looking_at_an_ended_run_again_does_not_open_it(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    plugin.on_run_end(status="finished", error=None, time=T0 + 60)
    plugin.on_flush()
    started().on_flush()  # a second replay: nothing is left to deliver
    assert local.run(run).info.status == "FINISHED"


def test_a_resumed_run_is_running_again(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    plugin.on_run_end(status="failed", error="RuntimeError: boom", time=T0 + 60)
    plugin.on_flush()
    plugin = started(resumed=True)
    tell(plugin, "on_batch_losses", step=9, losses=1.0, lr=None, time=T0 + 90)
    plugin.on_flush()
    found = local.run(run)
    assert found.info.status == "RUNNING"
    assert found.data.tags["losslog.resumed"] == "true"


def test_a_whole_resumed_journal_in_one_flush_ends_as_its_last_end_says(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    plugin.on_run_end(status="crashed", error=None, time=T0 + 60)
    plugin.on_run_start(name="m", config={}, epochs=2, steps_per_epoch=3, resumed=True, run=run, time=T0 + 70)
    plugin.on_run_end(status="finished", error=None, time=T0 + 90)
    plugin.on_flush()
    assert local.run(run).info.status == "FINISHED"


def test_the_error_is_a_tag(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    plugin.on_run_end(status="failed", error="RuntimeError: boom", time=T0)
    plugin.on_flush()
    assert local.run(run).data.tags["losslog.error"] == "RuntimeError: boom"


def test_config_is_params(started: Started, run: Any, local: Any) -> None:
    started(config={"lr": 0.1, "model": {"backbone": "resnet50"}, "odd@key": "x", "long": "y" * 9000}).on_flush()
    params = local.run(run).data.params
    assert params["model.backbone"] == "resnet50"
    assert len(params["long"]) == 6000
    assert (params["epochs"], params["steps_per_epoch"]) == ("2", "3")
    assert [value for name, value in params.items() if name.startswith("odd")] == ["x"]


def test_a_param_is_never_given_another_value(started: Started, run: Any, local: Any) -> None:
    started(config={"lr": 0.1}).on_flush()
    started(config={"lr": 0.2, "new": 1}, resumed=True).on_flush()
    found = local.run(run).data
    assert (found.params["lr"], found.params["new"]) == ("0.1", "1")
    assert found.tags["losslog.config.lr"] == "0.2"


def test_the_run_says_where_it_comes_from(
    started: Started, run: Any, local: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for command in (["init", "-q"], ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x", "--allow-empty"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, check=True, capture_output=True, text=True)
    monkeypatch.setenv("LOSSLOG_PROGRAM", str(project / "train.py"))
    started(tags={"team": "vision"}).on_flush()
    tags = local.run(run).data.tags
    assert tags["mlflow.source.name"] == str(project / "train.py")
    assert tags["mlflow.source.git.commit"] == commit.stdout.strip()
    assert tags["team"] == "vision"


def test_experiment_and_display_name_come_from_the_run(started: Started, run: Any, local: Any) -> None:
    started().on_flush()
    info = local.run(run).info
    assert local.client.get_experiment(info.experiment_id).name == "maskrcnn"
    assert info.run_name == f"maskrcnn {run.id}"


@pytest.mark.parametrize("how", ["experiment", "MLFLOW_EXPERIMENT_NAME"])
def test_the_experiment_can_be_chosen(
    started: Started, run: Any, local: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how.isupper():
        monkeypatch.setenv(how, "chosen")
        started().on_flush()
    else:
        started(experiment="chosen").on_flush()
    assert local.client.get_experiment(local.run(run).info.experiment_id).name == "chosen"


def test_a_deleted_experiment_is_named(started: Started, local: Any) -> None:
    local.client.delete_experiment(local.client.create_experiment("maskrcnn"))
    with pytest.raises(ValueError, match="'maskrcnn' is deleted"):
        started().on_flush()


def test_the_users_own_run_is_continued_and_not_ended(started: Started, run: Any, local: Any) -> None:
    users = local.client.create_run("0").info.run_id
    plugin = started(run_id=users)
    tell(plugin, "on_batch_losses", step=0, losses=1.0, lr=None, time=T0)
    plugin.on_run_end(status="finished", error=None, time=T0)
    plugin.on_flush()
    found = local.run(run)
    assert (found.info.run_id, found.info.status) == (users, "RUNNING")
    assert found.data.metrics == {"batch/train": 1.0}


def test_beside_an_active_fluent_run_ours_is_its_child(
    started: Started, run: Any, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{run.dir.parent}/mlflow.db")
    with mlflow.start_run() as parent:
        started(**MlflowPlugin.live_options()).on_flush()
        mlflow.log_metric("users", 1.0)
    mlflow.set_tracking_uri(None)
    assert local.run(run).data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert local.client.get_run(parent.info.run_id).data.metrics == {"users": 1.0}


def test_a_parent_in_another_store_is_left_out(
    started: Started, run: Any, local: Any, caplog: pytest.LogCaptureFixture
) -> None:
    started(parent_run_id="0" * 32, experiment_id="77").on_flush()
    assert "mlflow.parentRunId" not in local.run(run).data.tags
    assert "not its child" in caplog.text


def test_without_an_active_run_there_are_no_live_options() -> None:
    assert MlflowPlugin.live_options() == {}


def test_live_options_hold_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setattr(mlflow, "active_run", lambda: mlflow.ActiveRun)
    monkeypatch.setattr(
        mlflow.ActiveRun, "info", mlflow.entities.RunInfo("r", "1", "u", "RUNNING", 0, 0, "active"), False
    )
    mlflow.set_tracking_uri("http://admin:hunter2@127.0.0.1:1")
    options = MlflowPlugin.live_options()
    mlflow.set_tracking_uri(None)
    assert options["tracking_uri"] == "http://127.0.0.1:1"


def test_checkpoints_stay_where_they_are_unless_asked_for(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    plugin.on_checkpoint(path="missing.pth", run=run, seq=3)
    plugin.on_flush()
    assert local.client.list_artifacts(local.run(run).info.run_id) == []


def test_a_checkpoint_becomes_an_artifact_and_a_model_version_once(started: Started, run: Any, local: Any) -> None:
    (run.dir / "epoch_001.pth").write_bytes(b"weights")
    for _ in range(2):
        plugin = started(register="shapes")
        plugin.on_checkpoint(path="epoch_001.pth", run=run, seq=3)
        plugin.on_flush()
    found = local.run(run).info.run_id
    assert [each.path for each in local.client.list_artifacts(found, "checkpoints")] == ["checkpoints/epoch_001.pth"]
    versions = local.client.search_model_versions("name = 'shapes'")
    assert [(int(each.version), each.run_id) for each in versions] == [(1, found)]
    assert (run.dir.parent / "mlartifacts").is_dir()


def test_an_end_without_a_start_is_nothing() -> None:
    plugin = MlflowPlugin()
    plugin.on_run_end(status="finished", error=None, time=T0)
    assert plugin.on_flush() is None
