"""What can happen to the disk under the journal: training goes on, and what can be kept is kept."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read

FULL = os.environ.get("LOSSLOG_FAULTS") == "full"
STEPS = 300

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kB, mounted for this test alone."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "losslog-test", str(place)]
    done = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {done.stderr.strip() if done else 'no mount command'}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


# Filled by the training thread at step 100; what is logged from then on waits in memory until it is freed.
FILL = """
def hook(step):
    path = os.path.join(os.environ["RUNS"], "filler")
    if step == 100:
        run.flush(20)
        filler = os.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            while os.write(filler, bytes(1024)):
                pass
        except OSError:
            os.close(filler)
    if step == {free}:
        time.sleep(0.5)
        os.unlink(path)
        if os.environ.get("ROOM"):
            import subprocess
            subprocess.run(["mount", "-o", f"remount,size={os.environ['ROOM']}", os.environ["RUNS"]], check=True)
"""


def test_the_disk_is_full_for_a_while(bench: Any, expected: str, small_disk: Path) -> None:
    outcome = bench.start(each="hook(step)", before=FILL.replace("{free}", "200"),
                          after="run.close(10)", env={"RUNS": str(small_disk)}).finish()  # fmt: skip
    assert expected in outcome.out
    assert outcome.code == 0, outcome.err
    assert "the journal cannot be written" in outcome.err
    assert outcome.steps() == list(range(STEPS))
    for name in ("witness", "faulty"):
        outcome.wait_for(name)
    bench.row("the disk is full for a while", STEPS, 0)


def test_the_disk_is_full_until_the_end(bench: Any, expected: str, small_disk: Path) -> None:
    outcome = bench.start(each="hook(step)", before=FILL.replace("{free}", "-1"),
                          after="run.close(4)", env={"RUNS": str(small_disk)}).finish()  # fmt: skip
    assert expected in outcome.out
    assert outcome.code == 0, outcome.err
    kept = outcome.steps()
    assert kept == list(range(len(kept)))
    assert len(kept) >= 100
    waiting = [line for line in outcome.err.splitlines() if "could not be written to the journal" in line]
    assert len(waiting) == 1, outcome.err
    # STEPS batches, an epoch's end every 50 and the run's start and end: what is not there is what the report says.
    assert int(waiting[0].split()[1]) + len(outcome.records()) == STEPS + STEPS // 50 + 2
    outcome.stop_follower()
    bench.row("the disk is full until the end", STEPS, "what came after it was full; the report says how many")


# Metrics of 60 values each, 1.8 kB a line, more than twice as many as may wait; the queue stays short. The short form
# comes to a bound of its own in a tenth of the time.
COUNT, BOUND, MEMORY = (40_000, 32_000_000, 400) if FULL else (4_000, 3_200_000, 150)
MANY = f"""
import losslog.recording.drain
losslog.recording.drain.MAX_WAITING = {BOUND}
def log_many(count):
    for start in range(0, count, 1000):
        for number in range(start, start + 1000):
            run.log_metrics({{f"group/metric_{{i}}": number + i / 7 for i in range(60)}}, step=number)
        assert run.epoch_means(60) is not None
"""


def test_metrics_without_end_while_the_disk_is_full(bench: Any, expected: str, small_disk: Path) -> None:
    each = f"hook(step)\n    if step == 199: log_many({COUNT})"
    outcome = bench.start(each=each, before=FILL.replace("{free}", "299") + MANY, after="run.close(30)",
                          env={"RUNS": str(small_disk), "ROOM": "64m"}, plugins="None").finish(150)  # fmt: skip
    assert expected in outcome.out
    assert outcome.code == 0, outcome.err
    assert outcome.memory < MEMORY
    assert outcome.steps() == list(range(STEPS))
    kept = [record.data["step"] for record in outcome.records() if record.hook == "on_metrics"]
    said = [line for line in outcome.err.splitlines() if "metrics and other records were dropped" in line]
    assert len(said) == 1, outcome.err
    assert int(said[0].split()[1]) + len(kept) == COUNT
    assert kept == list(range(COUNT - len(kept), COUNT))
    assert len([record for record in outcome.records() if record.hook == "on_epoch_end"]) == STEPS // 50
    bench.row(
        "metrics without end while the disk is full", STEPS, "the oldest metrics beyond 32 MB; the report says how many"
    )


def test_the_disk_is_read_only_from_the_start(bench: Any, small_disk: Path, finished: Any) -> None:
    # Later it cannot become so: the kernel refuses to remount a file system with files open for writing.
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True, capture_output=True)
    done = finished(f"import losslog\nlosslog.Run('ro', dir={str(small_disk)!r}, plugins=None)")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 30] Read-only file system")
    bench.row("the disk is read-only from the start", 0, 0, "`losslog.Run` raises OSError", "nothing to do")


def test_the_run_folder_is_deleted_in_mid_run(bench: Any, expected: str) -> None:
    before = (
        "import shutil\ndef hook(step):\n    if step == 120:\n        run.flush(20)\n        shutil.rmtree(run.dir)\n"
    )
    outcome = bench.start(each="hook(step)", before=before, after="run.close(10)").finish()
    assert expected in outcome.out
    assert outcome.code == 0, outcome.err
    assert "was deleted or replaced: the journal is written anew" in outcome.err
    assert outcome.steps() == list(range(STEPS))
    outcome.stop_follower()
    bench.row("the run folder is deleted in mid-run", STEPS, "what backends kept in that folder",
              "nothing of the journal", "`replay --from-start` writes it anew")  # fmt: skip


@pytest.fixture
def ended(make_run: Callable[..., losslog.Run]) -> Path:
    run = make_run()
    for step in range(40):
        run.log_batch({"a": step / 3, "b": 1.0})
        if step % 20 == 19:
            run.end_epoch()
    run.close()
    return run.dir


def known(folder: Path) -> list[tuple[int, str]]:
    return [(record.seq, record.hook) for _, record in read(folder / JOURNAL) if record is not None]


def test_the_journal_is_cut_at_any_byte(ended: Path, bench: Any) -> None:
    whole = (ended / JOURNAL).read_bytes()
    everything, ends = known(ended), [i + 1 for i, byte in enumerate(whole) if byte == 10]
    cuts = range(len(whole)) if FULL else sorted(random.Random(1).sample(range(len(whole)), 150))
    for cut in cuts:
        (ended / JOURNAL).write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert known(ended) == everything[:complete]
        writer = Writer(ended)
        assert writer.end == (ends[complete - 1] if complete else 0)
        writer.close()
    bench.row("the journal is cut at any byte", "40", "the line that was cut", 0, "the next writer goes on after it")


@pytest.mark.timeout(600)  # 2000 runs, on a machine that may be busy
def test_the_journal_is_garbled_at_any_byte(ended: Path, bench: Any, probes: Any, make_run: Any, until: Any) -> None:
    whole, rng = (ended / JOURNAL).read_bytes(), random.Random(2)
    count = len(known(ended))
    for _ in range(2000 if FULL else 100):
        bad = bytearray(whole)
        position = rng.randrange(len(bad))
        bad[position] = rng.randrange(256)
        (ended / JOURNAL).write_bytes(bytes(bad))
        lost = count - len(known(ended))
        assert lost <= 2  # a garbled end of line joins two
        plugin = probes()
        run = make_run(resume=ended, plugins=[plugin])
        run.log_batch(1.0)
        run.close()
        until(lambda run=run: run.stats["lanes"]["Probe"]["state"] in ("done", "parked"))
        assert known(ended)[-1][1] == "on_run_end"
        shutil.rmtree(ended / "cursors")
    bench.row("the journal is garbled at any byte", "40", "that line, two where it was the end of one", 0,
              "readers pass over it and say so")  # fmt: skip
