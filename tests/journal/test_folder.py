from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from losslog.errors import JournalError
from losslog.journal.folder import JOURNAL, RUN_ID, clean_name, create, find


@pytest.mark.parametrize(
    ("name", "folder"),
    [("maskrcnn", "maskrcnn"), ("a/b", "a-b"), ("../../etc", "etc"), ("\x1b[31m", "31m"), ("", "run"), ("...", "run"),
     ("naïve run", "na-ve-run"), ("x" * 300, "x" * 100), ("lr=1e-3,b", "lr=1e-3-b")],
)  # fmt: skip
def test_names_become_folder_names(name: str, folder: str) -> None:
    assert clean_name(name) == folder


def test_a_run_folder_is_made_below_its_name(tmp_path: Path) -> None:
    folder = create(tmp_path / "runs", "a b")
    assert folder.parent == (tmp_path / "runs" / "a-b").resolve()
    assert RUN_ID.fullmatch(folder.name)


def test_two_runs_in_one_second_differ(tmp_path: Path) -> None:
    assert len({create(tmp_path, "a") for _ in range(20)}) == 20


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_nobody_else_may_write_there_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = create(tmp_path / "runs", "a")
    finally:
        os.umask(before)
    assert not [each for each in (folder, folder.parent, folder.parent.parent) if each.stat().st_mode & stat.S_IWOTH]


def make(root: Path, name: str, run_id: str) -> Path:
    folder = root / name / run_id
    folder.mkdir(parents=True)
    (folder / JOURNAL).touch()
    return folder.resolve()


def test_a_run_is_found_by_its_folder_and_by_files_in_it(tmp_path: Path) -> None:
    folder = make(tmp_path, "a", "20260101-000000-aaaa")
    (folder / "checkpoints").mkdir()
    assert {find(each) for each in (folder, folder / JOURNAL, folder / "checkpoints")} == {folder}


def test_a_run_is_found_by_its_id_and_by_its_beginning(tmp_path: Path) -> None:
    folder = make(tmp_path, "a", "20260101-000000-aaaa")
    make(tmp_path, "b", "20260102-000000-bbbb")
    assert find("20260101-000000-aaaa", tmp_path) == find("20260101", tmp_path) == folder


def test_latest_is_the_last_to_have_started(tmp_path: Path) -> None:
    make(tmp_path, "z", "20260101-000000-aaaa")
    folder = make(tmp_path, "a", "20260102-000000-aaaa")
    make(tmp_path, "m", "zebra")
    assert find("latest", tmp_path) == folder


def test_an_exact_id_wins_over_longer_ones(tmp_path: Path) -> None:
    folder = make(tmp_path, "a", "run")
    make(tmp_path, "b", "run2")
    assert find("run", tmp_path) == folder


@pytest.mark.parametrize(
    ("wanted", "said"),
    [("2026", "is the beginning of 2 run ids"), ("nothing", "no run 'nothing'"), ("", "no run ''")],
)
def test_what_cannot_be_found_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "a", "20260101-000000-aaaa")
    make(tmp_path, "a", "20260102-000000-aaaa")
    with pytest.raises(JournalError, match=said):
        find(wanted, tmp_path)


def test_no_runs_at_all_is_explained(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no runs under"):
        find("latest", tmp_path)
