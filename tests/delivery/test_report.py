from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losslog.delivery.discovery import Plugin
from losslog.delivery.report import end_report, shown, start_line

STATS = {"steps": 500, "records": 520, "us_per_step": 3.14159, "dropped": 0, "dropped_others": 0, "unwritten": 0,
         "journal": "", "cpu": 0.126, "journal_bytes": 1000, "lanes": {}}  # fmt: skip


def lane(**changes: Any) -> dict[str, Any]:
    return {"state": "done", "reason": "", "errors": 0, "committed": 1000, "behind": 0, "cpu": 1.5} | changes


def report(**changes: Any) -> str:
    return "\n".join(end_report("finished", STATS | changes, Path("/nowhere/runs/a/1")))


def plugin(name: str, state: str, reason: str = "") -> Plugin:
    found = Plugin(name)
    found.state, found.reason = state, reason
    return found


def test_the_start_says_what_is_on_and_why_the_rest_is_not() -> None:
    line = start_line(Path("/x/1"), [plugin("a", "ready"), plugin("b", "broken", "no"), plugin("c", "ready")])
    assert line == "a, c (not on: b broken: no) -> /x/1"


def test_without_plugins_there_is_the_journal() -> None:
    assert start_line(Path("/x/1"), []) == "the journal alone -> /x/1"


def test_a_path_below_the_working_directory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "runs" / "a") == str(Path("runs/a"))


def test_a_path_with_spaces_can_be_pasted(tmp_path: Path) -> None:
    assert shown(tmp_path / "my runs") == f'"{tmp_path / "my runs"}"'


def test_a_good_end_is_one_line() -> None:
    assert report(lanes={"a": lane()}) == (
        "finished: 500 steps, 520 records, 3.1 us a step on the training thread; CPU s: journal 0.13, a 1.50 "
        "-> /nowhere/runs/a/1"
    )


def test_drops_are_told() -> None:
    assert "3 batch records were dropped" in report(dropped=3)
    assert "4 metrics and other records were dropped" in report(dropped_others=4)


def test_what_is_not_in_the_journal_is_told() -> None:
    assert "7 records could not be written to the journal: disk full" in report(unwritten=7, journal="disk full")


def test_errors_are_told_although_all_was_delivered() -> None:
    assert "a: 2 errors, the last: ValueError: no" in report(lanes={"a": lane(errors=2, reason="ValueError: no")})


def test_what_is_undelivered_comes_with_the_command_that_delivers_it() -> None:
    text = report(
        lanes={"a": lane(state="hung", reason="8 s in one call", committed=10, behind=4), "b": lane(),
               "c": lane(state="waiting", committed=0, behind=520)}
    )  # fmt: skip
    assert "a: hung (8 s in one call); undelivered: 4" in text
    assert text.endswith("deliver what is missing with: losslog replay /nowhere/runs/a/1 --to a,c")


def test_hooks_of_the_script_are_not_offered_for_replay() -> None:
    text = report(lanes={"Mine": lane(state="parked", reason="x", committed=10, behind=4, own=True)})
    assert "Mine: parked (x); undelivered: 4" in text
    assert "losslog replay" not in text
