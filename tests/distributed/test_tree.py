"""Eight real ranks in four blocks: one of each block joins the other's values. Some die, one is paused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.distributed.conftest import Launched, start

SCRIPT = """
import signal
import losslog.ranks.mail as mail, losslog.recording.sender as sender
mail.SILENT, sender.LIFELESS, sender.LOOK_UP = 14.0, 6.0, 1.0
dist.init_process_group("gloo")
rank = dist.get_rank()

def value(name, rank, step):
    return ((rank * 31 + step * 17 + ord(name) * 7) % 101 - 20) / 7

def train(name, steps, at_step=lambda step: None, every=0.02):
    run = losslog.Run(name, dir=out + "/runs", plugins=None)
    began = time.monotonic()
    for step in range(steps):
        run.log_batch({"a": value("a", rank, step), **({"b": value("b", rank, step)} if rank % 2 else {})})
        at_step(step)
        time.sleep(max(0.0, began + step * every - time.monotonic()))
        if step == steps // 2:
            run.end_epoch()
    run.end_epoch()
    run.close(timeout=60)

def pause(step):
    if rank == 0 and step == 100:
        os.kill(int(open(f"{out}/pid-5").read()), signal.SIGSTOP)
    elif rank == 0 and step == 600:
        os.kill(int(open(f"{out}/pid-5").read()), signal.SIGCONT)

def die(who, when):
    def at_step(step):
        if rank == who and step == when:
            os._exit(0)
    return at_step

open(f"{out}/pid-{rank}", "w").write(str(os.getpid()))
dist.barrier()
before = len(counted)
train("whole", 60 + 10 * (rank % 3))
train("paused", 650, pause)
train("leaf", 300, die(7, 100))
train("joiner", 1500, die(4, 100))
tell(collectives=counted[before:])
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    return start(tmp_path_factory.mktemp("tree"), SCRIPT, 8, LOSSLOG_FANOUT="2")


def value(name: str, rank: int, step: int) -> float:
    return ((rank * 31 + step * 17 + ord(name) * 7) % 101 - 20) / 7


def batch(step: int, ranks: list[int]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Means and spreads of one step, by force."""
    having = {"a": ranks, "b": [rank for rank in ranks if rank % 2]}
    values = {name: [value(name, rank, step) for rank in those] for name, those in having.items() if those}
    means = {name: sum(each) / len(each) for name, each in values.items()}
    return means, {name: [min(each), max(each)] for name, each in values.items()}


def means(logged: list[tuple[int, int]]) -> dict[str, float]:
    """Means of (rank, step), by force."""
    found = {}
    for name in "ab":
        values = [value(name, rank, step) for rank, step in logged if name == "a" or rank % 2]
        found[name] = sum(values) / len(values)
    return found


def epochs(launched: Launched, name: str) -> list[dict[str, float]]:
    return [each["losses"] for each in launched.records("on_epoch_end", name)]


def test_means_spreads_and_epochs_are_those_over_all(launched: Launched) -> None:
    steps = [60 + 10 * (rank % 3) for rank in range(8)]
    parts = [[range(each // 2 + 1) for each in steps], [range(each // 2 + 1, each) for each in steps]]
    wanted = []
    for part in parts:
        for index in range(max(map(len, part))):
            wanted.append([(rank, each[index]) for rank, each in enumerate(part) if index < len(each)])
    found = launched.records("on_batch_losses", "whole")
    assert [each["ranks"] for each in found] == [len(each) for each in wanted]
    for record, logged in zip(found, wanted, strict=True):
        names = {name: [value(name, *each) for each in logged if name == "a" or each[0] % 2] for name in "ab"}
        names = {name: each for name, each in names.items() if each}
        assert record["losses"] == pytest.approx({name: sum(each) / len(each) for name, each in names.items()})
        assert record.get("spread") == {name: [min(each), max(each)] for name, each in names.items()}
    for mine, part in zip(epochs(launched, "whole"), parts, strict=True):
        assert mine == pytest.approx(means([(rank, step) for rank, each in enumerate(part) for step in each]))


def test_a_rank_that_is_paused_is_in_the_means_all_the_same(launched: Launched) -> None:
    found = launched.records("on_batch_losses", "paused")
    assert [each["step"] for each in found] == list(range(650))
    assert {each["ranks"] for each in found} == {7, 8}
    for step, record in enumerate(found):
        ranks = [rank for rank in range(8) if record["ranks"] == 8 or rank != 5]
        wanted, spread = batch(step, ranks)
        assert (record["losses"], record["spread"]) == (pytest.approx(wanted), spread)
    parts = range(326), range(326, 650)
    for mine, part in zip(epochs(launched, "paused"), parts, strict=True):
        assert mine == pytest.approx(means([(rank, step) for rank in range(8) for step in part]))


def test_a_rank_that_died_is_left_out(launched: Launched) -> None:
    found = launched.records("on_batch_losses", "leaf")
    assert len(found) == 300
    assert [each["ranks"] for each in found[:90]] == [8] * 90
    assert [each["ranks"] for each in found[110:]] == [7] * 190
    for step in (*range(90), *range(110, 300)):
        wanted, spread = batch(step, [*range(found[step]["ranks"])])
        assert (found[step]["losses"], found[step]["spread"]) == (pytest.approx(wanted), spread)
    ends = epochs(launched, "leaf")
    for mine, part in zip(ends, (range(151), range(151, 300)), strict=True):
        assert mine == pytest.approx(means([(rank, step) for rank in range(7) for step in part]))


def test_the_ranks_of_a_joiner_that_died_come_back(launched: Launched) -> None:
    found = launched.records("on_batch_losses", "joiner")
    assert len(found) == 1500
    assert {each["ranks"] for each in found[110:150]} == {4}  # 0 to 3
    alive = [0, 1, 2, 3, 5, 6]
    for step in range(1000, 1500):
        wanted, spread = batch(step, alive)
        assert (found[step]["ranks"], found[step]["losses"]) == (6, pytest.approx(wanted))
        assert found[step]["spread"] == spread
    assert "rank 4, which joins ranks 4 to 7, has said nothing for 14 s" in launched.output
    assert "rank 5 hands over to rank 0 now" in launched.output
    last = epochs(launched, "joiner")[-1]
    assert last == pytest.approx(means([(rank, step) for rank in alive for step in range(751, 1500)]))


def test_nothing_of_it_is_a_collective(launched: Launched) -> None:
    assert [launched.told(rank)["collectives"] for rank in (0, 1, 2, 3, 5, 6)] == [[]] * 6
    assert [each["status"] for name in ("whole", "paused", "leaf", "joiner")
            for each in launched.records("on_run_end", name)] == ["finished"] * 4  # fmt: skip


ELASTIC = """
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
attempt = f"{out}/began-{size}-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
run = losslog.Run("elastic", dir=out + "/runs", plugins=None, resume="auto", epochs=3)
if rank == 0:  # the loop's own: where it goes on
    open(attempt + ".tmp", "w").write(str(run.epoch))
    os.rename(attempt + ".tmp", attempt)
while not os.path.exists(attempt):
    time.sleep(0.01)
for epoch in range(int(open(attempt).read()), 4):
    for step in range(20):
        run.log_batch({"a": float(rank + 10 * epoch)}, epoch=epoch)
        time.sleep(0.02)
        if (epoch, step, rank) == (2, 10, 1) and attempt.endswith("-4-0"):
            while not os.path.exists(f"{out}/epoch_1.pth"):
                time.sleep(0.01)
            time.sleep(1.0)
            os._exit(1)
    run.end_epoch()
    run.flush()
    if rank == 0:
        open(f"{out}/epoch_{epoch}.pth", "w").close()
        run.log_checkpoint(f"{out}/epoch_{epoch}.pth")
        run.flush()
run.close()
"""


def test_one_run_goes_on_over_a_restart_and_with_other_ranks(launch: Callable[..., Any]) -> None:
    launched = launch(ELASTIC, 4, ("--max-restarts", "1"))
    assert len(launched.journals()) == 1
    (resumed,) = launched.records("on_resume")
    assert resumed["epoch"] == 1
    ends = launched.records("on_epoch_end")
    assert [each["epoch"] for each in ends] == [1, 2, 3]
    assert [each["losses"]["a"] for each in ends] == [11.5, 21.5, 31.5]
    assert [each["status"] for each in launched.records("on_run_end")][-1] == "finished"
    steps = [each["step"] for each in launched.records("on_batch_losses")]
    assert steps[-40:] == list(range(20, 60))
    again = launch(ELASTIC.replace("epochs=3", "epochs=4").replace(", 4):", ", 5):").replace(
        'resume="auto"', 'resume="latest"'), 2)  # fmt: skip
    ends = again.records("on_epoch_end")
    assert [(each["epoch"], each["losses"]["a"]) for each in ends[3:]] == [(4, 40.5)]
    assert len(again.journals()) == 1
    assert again.records("on_batch_losses")[-1]["ranks"] == 2
