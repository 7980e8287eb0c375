from __future__ import annotations

import pytest

from losslog.ranks.store import distributed, place


def test_alone() -> None:
    assert place() == (0, 1)


@pytest.mark.parametrize(
    ("rank", "size"),
    [("RANK", "WORLD_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")],
)
def test_the_launchers_variables(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    monkeypatch.setenv(rank, "2")
    monkeypatch.setenv(size, "4")
    assert place() == (2, 4)


@pytest.mark.parametrize(("rank", "size"), [("x", "4"), ("4", "4"), ("-1", "4"), ("0", "1"), ("", "")])
def test_variables_that_make_no_sense_are_ignored(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert place() == (0, 1)


def test_no_process_group_no_distributed() -> None:
    assert distributed() is None
