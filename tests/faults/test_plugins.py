"""What a plugin can do wrong: training never notices, the other backend gets everything, replay completes the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

FULL = os.environ.get("LOSSLOG_FAULTS") == "full"
STEPS = 300

pytestmark = pytest.mark.timeout(180)

# Where and what; what the table calls it.
RAISING = [
    ("on_batch_losses:raise", "a hook that raises at every call"),
    ("on_batch_losses:SystemExit", "a hook that raises SystemExit"),
    ("on_batch_losses:KeyboardInterrupt", "a hook that raises KeyboardInterrupt"),
    ("on_flush:raise", "a flush that always raises"),
    ("on_batch_losses:away", "a backend that refuses connections"),
    ("on_flush:away", "a backend that is away when it is flushed"),
]
HANGING = [
    ("on_batch_losses:hang", "a hook that hangs for ever"),
    ("on_flush:hang", "a flush that hangs for ever"),
    ("on_run_end:hang", "a plugin that hangs at the end"),
]
NOW_AND_THEN = [("on_batch_losses:sometimes", "a hook that raises now and then")]
HARMLESS = [
    ("on_batch_losses:mutate", "a hook that changes what it gets"),
    ("on_batch_losses:leak", "a hook that keeps what it gets"),
    ("on_batch_losses:fork", "a hook that forks and returns in both"),
]
NEAR = {"on_batch_losses:raise", "on_batch_losses:KeyboardInterrupt", "on_batch_losses:hang", "on_batch_losses:mutate",
        "on_batch_losses:fork", "on_flush:away"}  # fmt: skip


def places(faults: list[tuple[str, str]]) -> list[Any]:
    """Each fault in the follower; in the training process all in the full suite, some in the short one."""
    found = [pytest.param(fault, text, False, id=f"far-{fault}") for fault, text in faults]
    near = [pytest.param(fault, text, True, id=f"near-{fault}") for fault, text in faults if FULL or fault in NEAR]
    return found + near


def where(near: bool) -> str:
    return "in the training process" if near else "in the follower"


def trained_as_ever(outcome: Any, expected: str, steps: int = STEPS) -> None:
    assert expected in outcome.out
    assert outcome.code == 0, outcome.err
    assert outcome.steps() == list(range(steps))
    assert outcome.memory < 200


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("fault", "text", "near"), places(RAISING))
def test_one_that_fails(bench: Any, expected: str, fault: str, text: str, near: bool) -> None:
    outcome = bench.start(fault, near=near).finish()
    trained_as_ever(outcome, expected)
    outcome.wait_for("witness")
    said = outcome.undelivered("faulty")
    assert said is not None, outcome.err
    remedy = outcome.remedy("faulty")
    outcome.stop_follower()
    held = len(outcome.backend("faulty"))
    assert held + said >= len(outcome.wanted())
    outcome.complete_after_replay("faulty")
    bench.row(f"{text}, {where(near)}", STEPS, 0, f"{said} records", remedy)


@pytest.mark.parametrize(
    ("fault", "text", "near"), places([("on_batch_losses:sometimes", "a hook that raises now and then")])
)
def test_one_that_fails_now_and_then(bench: Any, expected: str, fault: str, text: str, near: bool) -> None:
    outcome = bench.start(fault, near=near).finish()
    trained_as_ever(outcome, expected)
    outcome.wait_for("witness")
    skipped = [step for step in range(STEPS) if step % 7 == 3]
    kept = [each[2]["step"] for each in outcome.backend("faulty") if each[1] == "batch"]
    assert kept == [step for step in range(STEPS) if step not in skipped]
    assert f"faulty: {len(skipped)} errors" in outcome.err
    assert f"faulty: {len(skipped)} records skipped" in outcome.err
    bench.row(f"{text}, {where(near)}", STEPS, 0, f"{len(skipped)} records skipped, as the report says",
              "`replay --skipped`")  # fmt: skip


def shown(outcome: Any) -> str:
    """What ``losslog show`` says of the run, once its follower is gone."""
    command = [sys.executable, "-m", "losslog", "show", str(outcome.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("near", [False, True], ids=["far", "near"])
def test_flushes_that_fail_in_a_run_too_short_to_park_the_plugin(bench: Any, arrives: Any, near: bool) -> None:
    outcome = bench.start("on_flush:raise", near=near, steps=8).finish()
    trained_as_ever(outcome, arrives(8), 8)
    outcome.wait_for("witness")
    said, remedy = outcome.undelivered("faulty"), outcome.remedy("faulty")
    assert said == len(outcome.records())
    outcome.follower_ends()
    assert "faulty: complete" not in shown(outcome)
    outcome.complete_after_replay("faulty")
    bench.row(f"a flush that always raises, in a run of 8 steps, {where(near)}", 8, 0, f"{said} records", remedy)


@pytest.mark.parametrize("near", [False, True], ids=["far", "near"])
def test_batches_that_fail_in_a_run_too_short_to_park_the_plugin(bench: Any, arrives: Any, near: bool) -> None:
    """It takes the run's start and end, so these are delivered; the batches are skipped, and never said to be there."""
    outcome = bench.start("on_batch_losses:raise", near=near, steps=8).finish()
    trained_as_ever(outcome, arrives(8), 8)
    outcome.wait_for("witness")
    assert "faulty: 8 records skipped" in outcome.err
    outcome.follower_ends()
    command = f"losslog replay {outcome.folder.name} --to faulty --skipped"
    assert f"faulty: complete, but 8 skipped: {command}" in shown(outcome)
    outcome.replay("faulty", skipped=True)
    assert sorted(outcome.backend("faulty")) == sorted(outcome.wanted())
    text = f"a hook that raises at every call, in a run of 8 steps, {where(near)}"
    bench.row(text, 8, 0, "8 records skipped, as the report says", "`replay --skipped`")


@pytest.mark.parametrize("near", [False, True], ids=["far", "near"])
def test_skipped_records_are_told_and_delivered_later(bench: Any, expected: str, near: bool) -> None:
    outcome = bench.start("on_batch_losses:sometimes", near=near).finish()
    trained_as_ever(outcome, expected)
    outcome.follower_ends()
    skipped = len([step for step in range(STEPS) if step % 7 == 3])
    command = f"losslog replay {outcome.folder.name} --to faulty --skipped"
    assert f"faulty: complete, but {skipped} skipped: {command}" in shown(outcome)
    outcome.replay("faulty")
    assert len(outcome.backend("faulty")) == len(outcome.wanted()) - skipped  # they are not to come again unasked
    outcome.replay("faulty", skipped=True)
    assert sorted(outcome.backend("faulty")) == sorted(outcome.wanted())
    assert "faulty: complete\n" in shown(outcome)
    text = f"skipped records, weeks later, {where(near)}"
    bench.row(text, STEPS, 0, f"{skipped} skipped, as `show` says", "`replay --skipped` delivers them, once")


@pytest.mark.parametrize(("fault", "text", "near"), places(HANGING))
def test_one_that_hangs(bench: Any, expected: str, fault: str, text: str, near: bool) -> None:
    outcome = bench.start(fault, near=near, after="run.close(2)").finish()
    trained_as_ever(outcome, expected)
    outcome.wait_for("witness")
    said = outcome.undelivered("faulty")
    assert said is not None, outcome.err
    remedy = outcome.remedy("faulty")
    outcome.stop_follower()
    assert len(outcome.backend("faulty")) + said >= len(outcome.wanted())
    outcome.complete_after_replay("faulty")
    bench.row(f"{text}, {where(near)}", STEPS, 0, f"{said} records", remedy)


@pytest.mark.parametrize(("fault", "text", "near"), places(HARMLESS))
def test_one_that_abuses_what_it_gets(bench: Any, expected: str, fault: str, text: str, near: bool) -> None:
    outcome = bench.start(fault, near=near).finish()
    trained_as_ever(outcome, expected)
    for name in ("witness", "faulty"):
        outcome.wait_for(name)
        assert outcome.doubled(name) == 0
    bench.row(f"{text}, {where(near)}", STEPS, 0)


def test_one_that_is_slow(bench: Any, expected: str) -> None:
    outcome = bench.start("on_batch_losses:slow").finish()
    trained_as_ever(outcome, expected)
    outcome.wait_for("witness")
    said = outcome.undelivered("faulty")
    assert said is not None, outcome.err
    assert said > STEPS / 2
    if FULL:
        outcome.wait_for("faulty", 120)
        outcome.follower_ends()
    else:
        outcome.stop_follower()
        outcome.complete_after_replay("faulty")
    bench.row("a plugin that takes 200 ms a call", STEPS, 0, f"{said} records", "the follower delivers them by itself")


@pytest.mark.parametrize("where_it_fails", ["import", "__init__"])
@pytest.mark.parametrize("how", ["raise", "SystemExit"])
def test_one_that_cannot_be_made(bench: Any, expected: str, where_it_fails: str, how: str) -> None:
    env = {"LOSSLOG_DISABLE": "console,tensorboard,wandb,mlflow,notify,plateau,trackio"}
    outcome = bench.start(f"{where_it_fails}:{how}", env=env, plugins='"auto"').finish()
    trained_as_ever(outcome, expected)
    outcome.wait_for("witness")
    assert re.search(r"\(broken: faulty; not on: [^;]*; losslog plugins says why\)", outcome.err.splitlines()[0])
    command = [sys.executable, "-m", "losslog", "plugins"]
    fault = {"FAULTY": f"{where_it_fails}:{how}"}
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | fault).stdout
    assert re.search(r"^faulty .* broken .*(SystemExit: 7|Odd: on purpose)", told, re.M), told
    assert not (outcome.folder / "faulty.jsonl").exists()
    outcome.complete_after_replay("faulty")
    when = "imported" if where_it_fails == "import" else "made"
    text = f"a plugin that raises {how.replace('raise', 'an exception')} when {when}"
    bench.row(text, STEPS, 0, "said at the start", "replay delivers all of it, once")


def test_one_that_crashes_the_process_it_is_in(bench: Any, expected: str) -> None:
    outcome = bench.start("on_batch_losses:crash").finish()
    trained_as_ever(outcome, expected)
    outcome.stop_follower()
    assert "the follower died" in outcome.err
    outcome.complete_after_replay("faulty")
    outcome.complete_after_replay("witness", once=False)
    text = "a plugin whose native code kills the follower, each time"
    bench.row(text, STEPS, 0, "what far plugins had not got", "replay delivers them, once")
