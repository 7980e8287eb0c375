"""A new sqlite store comes to its place whole, once, and over no other, with hard links and without."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from losslog_mlflow import store
from losslog_mlflow.store import make_sqlite


def test_two_runs_that_start_together_share_one_new_store(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make_sqlite, [tmp_path / "mlflow.db"] * 2))
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Path], None]]:
    """A file system without hard links; what is in the list happens in the moment before one is tried."""
    before: list[Callable[[Path], None]] = []

    def link(source: Any, target: Any, **_: Any) -> None:
        for each in before:
            each(Path(target))
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), source)

    monkeypatch.setattr(os, "link", link)
    return before


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, template: Path) -> None:
    """A new store is a copy of one: what is tried is how it comes to its place."""
    import mlflow

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            self._path = Path(tracking_uri.removeprefix("sqlite:///"))

        def search_experiments(self, **_: Any) -> None:
            shutil.copy(template, self._path)

    monkeypatch.setattr(mlflow, "MlflowClient", Client)


def test_a_store_is_made_where_there_are_no_hard_links(no_links: Any, tmp_path: Path) -> None:
    make_sqlite(tmp_path / "mlflow.db")
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_experiment("here")
    make_sqlite(tmp_path / "mlflow.db")
    assert client.get_experiment_by_name("here") is not None


def test_a_store_made_meanwhile_is_not_replaced_without_links(no_links: Any, quick: None, tmp_path: Path) -> None:
    no_links.append(lambda path: path.write_bytes(b"of another run"))
    make_sqlite(tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == b"of another run"
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]


def test_one_of_many_stores_is_kept_without_links(
    no_links: Any, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda *places: (moved.append(places), replace(*places)))
    together = threading.Barrier(8)
    no_links.append(lambda path: together.wait(30) and None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make_sqlite, [tmp_path / "mlflow.db"] * 8))
    assert len(moved) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_claim_of_a_killed_one_holds_nobody_up(
    no_links: Any, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CLAIM", 3)
    (tmp_path / ".mlflow.db.claim").touch()
    make_sqlite(tmp_path / "mlflow.db")
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("uri", ["localhost:5000", "10.0.0.1:80/mlflow", "mlflow.example.org:443"])
def test_an_address_without_a_scheme_is_named_with_the_fix(uri: str) -> None:
    with pytest.raises(ValueError, match=f"has no scheme: use http://{uri}"):
        store.connect(uri)


def test_a_missing_driver_is_named_with_the_fix_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(ModuleNotFoundError, match=r"postgresql\+psycopg2:// needs the driver 'psycopg2'") as raised:
        store.connect("postgresql+psycopg2://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(raised.value)
