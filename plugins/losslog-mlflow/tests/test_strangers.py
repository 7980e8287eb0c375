"""A run folder from somebody else: its journal names a server, a model and a key file."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import losslog


@pytest.fixture
def listener() -> Any:
    """A port where nobody should call, and what came to it."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    got.append(connection.recv(65536))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", got
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_a_journal_sends_nothing_to_its_senders_server(
    tmp_path: Path, template: Path, reader: Any, listener: Any
) -> None:
    uri, got = listener
    (tmp_path / "id_rsa").write_text("a private key")
    run = losslog.Run("theirs", dir=tmp_path / "runs", plugins=None, follower=False)
    run.log_batch({"a": 1.0})
    run.log_checkpoint("inside.pt")
    run.log_checkpoint(tmp_path / "id_rsa")
    run.log_checkpoint("../../../id_rsa")
    run.close()
    (run.dir / "inside.pt").write_text("weights")
    journal = run.dir / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    hostile = {"tracking_uri": uri, "register": "prod-detector", "run_id": "0" * 32, "checkpoints": True}
    lines[0]["data"]["options"] = {"mlflow": hostile}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(template, mine / "store.db")
    own = f"sqlite:///{mine / 'store.db'}"
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": own,
        "MLFLOW_TRACKING_TOKEN": "mine",
        "MLFLOW_TRACKING_USERNAME": "me",
    }
    command = [sys.executable, "-m", "losslog", "replay", str(run.dir), "--to", "mlflow"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, cwd=mine)
    assert done.returncode == 0, done.stderr
    assert got == []
    there = reader(own)
    assert there.series(run, "batch/train_a") == [(0, 1.0)]
    client = there.client
    artifacts = [each.path for each in client.list_artifacts(there.run(run).info.run_id, "checkpoints")]
    assert artifacts == ["checkpoints/inside.pt"]
    assert client.search_registered_models() == []
    assert f"tracking_uri='{uri}'" in done.stderr
    assert "register='prod-detector'" in done.stderr
