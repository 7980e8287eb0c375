from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from losslog.delivery.discovery import Plugin
from losslog.delivery.report import end_report, shown, start_line

STATS = {"steps": 500, "records": 520, "us_per_step": 3.14159, "dropped": 0, "dropped_others": 0, "unwritten": 0,
         "journal": "", "cpu": 0.126, "journal_bytes": 1000, "lanes": {}, "seconds": 133.4, "epochs": 0, "best": {},
         "alerts": [], "worst": ""}  # fmt: skip


def lane(**changes: Any) -> dict[str, Any]:
    return {"state": "done", "reason": "", "errors": 0, "committed": 1000, "behind": 0, "cpu": 1.5, "own": False,
            "far": False} | changes  # fmt: skip


def levels(**changes: Any) -> list[tuple[int, str]]:
    return end_report("finished", STATS | changes, Path("/nowhere/runs/a/1"))


def report(**changes: Any) -> str:
    return "\n".join(line for level, line in levels(**changes) if level > logging.DEBUG)


def plugin(name: str, state: str, reason: str = "") -> Plugin:
    found = Plugin(name)
    found.state, found.reason = state, reason
    return found


def test_the_start_says_what_is_on_and_where_one_learns_why_the_rest_is_not() -> None:
    found = [plugin("a", "ready"), plugin("b", "broken", "no"), plugin("c", "ready")]
    assert start_line(Path("/x/1"), found) == "a, c (broken: b; losslog plugins says why) -> /x/1"
    found += [plugin("d", "off"), plugin("e", "not ready")]
    assert start_line(Path("/x/1"), found) == "a, c (broken: b; not on: d, e; losslog plugins says why) -> /x/1"


def test_without_plugins_there_is_the_journal() -> None:
    assert start_line(Path("/x/1"), []) == "the journal alone -> /x/1"


def test_a_path_below_the_working_directory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "runs" / "a") == str(Path("runs/a"))


def test_a_path_with_spaces_can_be_pasted(tmp_path: Path) -> None:
    assert shown(tmp_path / "my runs") == f'"{tmp_path / "my runs"}"'


def test_a_good_end_is_one_line() -> None:
    assert report(lanes={"a": lane()}, epochs=1) == "finished after 2:13, 1 epoch -> /nowhere/runs/a/1"


def test_without_epochs_steps_are_counted_and_the_way_to_epochs_is_said() -> None:
    assert report(lanes={"a": lane()}).splitlines() == [
        "finished after 2:13, 500 steps -> /nowhere/runs/a/1",
        "no epoch was ended: series by epoch (loss/train_*) come with run.end_epoch()",
    ]


def test_the_end_says_what_a_person_wants() -> None:
    best = {"bbox AP": (0.8123456, 10), "segm AP": (0.731, 9)}
    assert report(
        epochs=10, best=best, alerts=["loss_mask has stalled", "x"], worst="loss_mask has stalled", seconds=3723
    ) == (
        "finished after 1:02:03, 10 epochs, best bbox AP 0.8123 (epoch 10), best segm AP 0.7310 (epoch 9), 2 alerts: "
        "loss_mask has stalled -> /nowhere/runs/a/1"
    )


def test_the_time_of_a_resumed_run_is_that_since() -> None:
    assert report(epochs=4, seconds=61, resumed=True).startswith("finished after 1:01 since the resume, 4 epochs ")


def test_what_logging_cost_is_for_those_who_ask() -> None:
    said = [line for level, line in levels(lanes={"a": lane()}) if level == logging.DEBUG]
    assert said == ["logging cost 3.1 us a step on the training thread; 520 records; CPU s: journal 0.13, a 1.50"]


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


def test_what_the_follower_goes_on_with_is_no_loss_and_no_command_is_offered_that_is_refused() -> None:
    lanes = {"a": lane(state="live", committed=10, behind=65, far=True),
             "b": lane(state="waiting", reason="x", committed=10, behind=1, far=True), "c": lane(far=True)}  # fmt: skip
    assert levels(lanes=lanes, epochs=1)[2:] == [
        (logging.INFO, "a: 65 records to go"),
        (logging.WARNING, "b: 1 record to go (x)"),
        (
            logging.INFO,
            "the follower goes on with a, b for up to 10 minutes; look with: losslog show /nowhere/runs/a/1",
        ),
    ]


def test_what_is_parked_is_a_warning_with_the_command() -> None:
    lanes = {"a": lane(state="parked", reason="ValueError: no", committed=10, behind=4, far=True)}
    assert levels(lanes=lanes, epochs=1)[2:] == [
        (logging.WARNING, "a: parked (ValueError: no); undelivered: 4"),
        (logging.WARNING, "deliver what is missing with: losslog replay /nowhere/runs/a/1 --to a"),
    ]


def test_hooks_of_the_script_are_not_offered_for_replay() -> None:
    text = report(lanes={"Mine": lane(state="parked", reason="x", committed=10, behind=4, own=True)})
    assert (
        "Mine: not called with what came last: parked (x); its records stay in /nowhere/runs/a/1/journal.jsonl" in text
    )
    assert "undelivered" not in text
    assert "losslog replay" not in text


def test_what_still_waits_when_time_is_up_is_told() -> None:
    assert "2390 records still waited for the journal when time was up" in report(queued=2390)
    assert "still waited" not in report(queued=0)
