from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from losslog.ranks.store import OWNER, alone, distributed, launched, place
from losslog.runtime.notices import Once


def test_alone() -> None:
    assert place() == (0, 1)


LAUNCHERS = [("RANK", "WORLD_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")]


@pytest.mark.parametrize(("rank", "size"), LAUNCHERS)
def test_a_launchers_variables_alone_make_nobody_a_rank(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    monkeypatch.setenv(rank, "2")
    monkeypatch.setenv(size, "4")
    assert launched() == (2, 4)
    assert place() == (0, 1)
    assert "process 2 of 4" in alone()


@pytest.fixture
def torchruns(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The variables of torchrun, with something that answers where its store would."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
        for name, value in {**found, "MASTER_PORT": str(server.getsockname()[1])}.items():
            monkeypatch.setenv(name, value)
        yield server


def test_torchruns_store_makes_ranks_before_there_is_a_group(torchruns: socket.socket) -> None:
    assert place() == (1, 4)
    assert alone() == ""


def test_torchruns_variables_without_its_store_make_no_ranks(torchruns: socket.socket) -> None:
    torchruns.close()
    assert place() == (0, 1)
    assert "process 1 of 4" in alone()


@pytest.mark.parametrize("port", ["", "x"])
def test_torchruns_variables_without_a_port_make_no_ranks(
    torchruns: socket.socket, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.setenv("MASTER_PORT", port)
    assert place() == (0, 1)


def test_what_a_rank_starts_inherits_its_variables_and_is_no_rank(
    torchruns: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OWNER, str(os.getpid() + 1))
    assert place() == (0, 1)
    assert alone() == ""


@pytest.mark.parametrize(("rank", "size"), LAUNCHERS)
def test_each_process_that_cannot_meet_others_is_a_whole_run_and_says_it_once(
    monkeypatch: pytest.MonkeyPatch, make_run: Any, caplog: pytest.LogCaptureFixture, rank: str, size: str
) -> None:
    monkeypatch.setattr("losslog.run._said", Once())
    monkeypatch.setenv(rank, "2")
    monkeypatch.setenv(size, "4")
    for _ in range(2):
        run = make_run()
        run.log_batch({"a": 1.0})
        run.request_stop("enough")
        assert run.should_stop
        run.close()
        assert (run.dir / "journal.jsonl").exists()
    assert caplog.text.count("is a run of its own") == 1


@pytest.mark.parametrize(("rank", "size"), [("x", "4"), ("4", "4"), ("-1", "4"), ("0", "1"), ("", "")])
def test_variables_that_make_no_sense_are_ignored(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert place() == (0, 1)


def test_no_process_group_no_distributed() -> None:
    assert distributed() is None
