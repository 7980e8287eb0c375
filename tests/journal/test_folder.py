from __future__ import annotations

import itertools
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.errors import JournalError
from losslog.journal.folder import JOURNAL, RUN_ID, clean_name, create, file_in, find, runs


@pytest.mark.parametrize(
    ("name", "folder"),
    [("maskrcnn", "maskrcnn"), ("a/b", "a-b"), ("../../etc", "etc"), ("\x1b[31m", "31m"), ("", "run"), ("...", "run"),
     ("naïve run", "na-ve-run-a1daee0c"), ("x" * 300, "x" * 90 + "-1b432d13"), ("lr=1e-3,b", "lr=1e-3-b")],
)  # fmt: skip
def test_names_become_folder_names(name: str, folder: str) -> None:
    assert clean_name(name) == folder


def test_a_run_folder_is_made_below_its_name(tmp_path: Path) -> None:
    folder = create(tmp_path / "runs", "a b")
    assert folder.parent == (tmp_path / "runs" / "a-b").resolve()
    assert RUN_ID.fullmatch(folder.name)


def test_ids_sort_as_runs_were_made_also_within_a_second(tmp_path: Path) -> None:
    made = [create(tmp_path, name) for _ in range(20) for name in "cab"]
    assert len({each.name for each in made}) > 20
    assert all(first.name <= second.name for first, second in itertools.pairwise(made))
    for name in "cab":
        ids = [each.name for each in made if each.parent.name == name]
        assert ids == sorted(set(ids))


def test_an_id_that_is_taken_is_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_767_225_600_999_999_999)
    assert [create(tmp_path, "a").name for _ in range(2)] == ["20260101-000000-ffff", "20260101-000001-0000"]


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
    assert find("latest", tmp_path) == folder


def test_latest_of_a_name_and_the_name_itself_are_its_newest_run(tmp_path: Path) -> None:
    make(tmp_path, "a", "20260101-000000-aaaa")
    folder = make(tmp_path, "a", "20260102-000000-aaaa")
    make(tmp_path, "b", "20260103-000000-aaaa")
    assert {find(said, tmp_path) for said in ("a", "a/latest")} == {folder}
    assert find("latest", tmp_path, "a") == folder


def test_a_run_is_found_as_it_lies(tmp_path: Path) -> None:
    old, new = (make(tmp_path, "a", f"2026010{day}-000000-aaaa") for day in (1, 2))
    other = make(tmp_path, "b", "20260101-000000-aaaa")
    assert find("a/20260101-000000-aaaa", tmp_path) == find("a/20260101", tmp_path) == old
    assert find("b/2026", tmp_path) == other
    assert find("a/", tmp_path) == new
    deep = make(tmp_path, "a-b", "20260103-000000-aaaa")
    assert find("a/b", tmp_path) == deep  # a name with a slash
    with pytest.raises(JournalError, match=r"is the beginning of 2 run ids"):
        find("a/2026", tmp_path)
    with pytest.raises(JournalError, match=r"no run 'a/2027': not a folder"):
        find("a/2027", tmp_path)


def test_runs_under_other_ids_are_ordered_by_their_journals(tmp_path: Path) -> None:
    new, old = make(tmp_path, "a", "first"), make(tmp_path, "a", "second")
    os.utime(old / JOURNAL, (1e9, 1e9))
    assert runs(tmp_path) == [tmp_path / "a" / "second", tmp_path / "a" / "first"]
    assert find("latest", tmp_path) == new


def test_an_id_wins_over_a_name_and_a_name_over_a_beginning(tmp_path: Path) -> None:
    by_id = make(tmp_path, "a", "exp")
    by_name = make(tmp_path, "ex", "20260101-000000-aaaa")
    make(tmp_path, "exp", "20260101-000000-bbbb")
    assert find("exp", tmp_path) == by_id
    assert find("ex", tmp_path) == by_name


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


@pytest.mark.parametrize(("one", "other"), [("опыт", "другой"), ("実験", "运行"), ("x" * 120 + "a", "x" * 120 + "b")])
def test_names_that_differ_have_folders_that_differ(one: str, other: str) -> None:
    assert clean_name(one) != clean_name(other)
    assert clean_name(one).isascii()


def test_a_name_in_another_script_is_found_by_it(tmp_path: Path) -> None:
    with losslog.Run("实验", dir=tmp_path, plugins=None) as run:
        run.log_batch(1.0)
    with losslog.Run("另一个", dir=tmp_path, plugins=None):
        pass
    assert find("实验", tmp_path) == run.dir
    assert find("实验/latest", tmp_path) == run.dir


def test_a_file_in_the_run_folder_is_called_by_its_place_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "c.pth"
    (run / "checkpoints").mkdir(parents=True)
    inside = run / "checkpoints" / "c.pth"
    for each in (inside, elsewhere):
        each.touch()
    monkeypatch.chdir(tmp_path)
    assert file_in(run, str(inside)) == file_in(run, "run/checkpoints/c.pth") == ("checkpoints/c.pth", True)
    assert file_in(run, "checkpoints/c.pth") == ("checkpoints/c.pth", True)
    assert file_in(run, "c.pth") == (str(elsewhere), True)
    assert file_in(run, "absent.pth") == ("absent.pth", False)


@pytest.mark.parametrize(
    ("name", "said"),
    [("latest", "the newest run"), ("a/latest", "the newest run"), ("./latest", "the newest run"),
     ("auto", "the run to resume"), (" auto ", "the run to resume"), (".", "a folder's name"),
     ("..", "a folder's name"), ("-x", "an option"), ("--dir", "an option"), ("20261126-080555-5a12", "a run's id")],
)  # fmt: skip
def test_a_name_that_means_something_else_is_refused(make_run: Any, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"no run can be called .*{said}"):
        make_run(name=name)
    with pytest.raises(ValueError, match="no run can be called"):
        make_run(name=name, resume="auto")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(SystemExit, match="2"):
        main(["demo", f"--name={name}", "--dir", str(tmp_path / "runs")])


@pytest.mark.parametrize("name", ["latest-2", "autobahn", "late.st", "x-", ".hidden", "a.b", "2026", "Latest run"])
def test_a_name_that_only_resembles_one_is_not(make_run: Any, name: str) -> None:
    assert make_run(name=name).name == name


@pytest.mark.parametrize(("name", "stem"), [("latest", "run-latest"), ("auto", "run-auto"), ("-x", "run-x")])
def test_a_script_of_that_name_gives_its_run_another(finished: Any, tmp_path: Path, name: str, stem: str) -> None:
    source = f"import sys, losslog; sys.argv[0] = {name + '.py'!r}; losslog.Run(dir='runs', plugins=None).close()"
    assert finished(source).returncode == 0
    assert [each.name for each in (tmp_path / "runs").iterdir()] == [stem]


def test_runs_that_have_such_a_name_are_read_and_gone_on_with(make_run: Any, tmp_path: Path) -> None:
    """They were made before it was refused."""
    first = make_run(name="before")
    first.log_batch(1.0)
    first.close()
    old = first.dir.parent.rename(tmp_path / "runs" / "latest") / first.id
    journal = old / JOURNAL
    journal.write_text(journal.read_text().replace('"before"', '"latest"'))
    assert find("latest/latest", tmp_path / "runs") == old
    for resume in ("latest", "latest/latest", first.id, old):
        run = make_run(name="latest", resume=resume)
        assert run.dir == old
        run.close()
