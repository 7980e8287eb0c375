"""Which run a new process goes on with: the one that was named, and no other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.errors import JournalError
from losslog.journal.resuming import AUTO, resumed


@pytest.fixture
def trained(make_run: Callable[..., losslog.Run]) -> Callable[..., losslog.Run]:
    """A run of a name that has logged some epochs, with a checkpoint after each, and has ended in some way."""

    def train(name: str, epochs: int = 2, *, end: str = "finished", planned: int | None = None) -> losslog.Run:
        run = make_run(name=name, epochs=planned)
        for epoch in range(1, epochs + 1):
            run.log_batch({"a": 1.0 / epoch})
            run.end_epoch()
            (run.dir / "checkpoints").mkdir(exist_ok=True)
            (run.dir / "checkpoints" / f"epoch_{epoch:03d}.pth").touch()
            run.log_checkpoint(f"checkpoints/epoch_{epoch:03d}.pth")
        if end == "finished":
            run.close()
        else:
            run.end_at_exit(end, None)
        return run

    return train


def test_latest_of_a_name_is_a_run_of_that_name(trained: Any, make_run: Any) -> None:
    first, other = trained("expA"), trained("expB")
    before = (other.dir / "journal.jsonl").read_bytes()
    again = make_run(name="expA", resume="latest")
    again.log_batch({"a": 1.0})
    again.close()
    assert again.dir == first.dir
    assert (other.dir / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize("said", ["latest", "expB", "expB/latest", "{id}", "{folder}"])
def test_without_a_name_run_decides(trained: Any, make_run: Any, said: str) -> None:
    trained("expA")
    run = trained("expB")
    again = make_run(name=None, resume=said.format(id=run.id, folder=run.dir))
    assert (again.dir, again.name) == (run.dir, "expB")


def test_a_name_that_is_no_folder_name_is_kept(trained: Any, make_run: Any) -> None:
    run = trained("lr=1e-3 / big")
    assert make_run(name=None, resume=run.dir).name == "lr=1e-3 / big"


def test_a_run_of_another_name_is_refused(trained: Any, make_run: Any) -> None:
    run = trained("expB")
    with pytest.raises(JournalError) as caught:
        make_run(name="expA", resume=run.dir)
    assert str(caught.value) == (
        f"{run.dir} is a run of 'expB', not of 'expA': leave the name out, or resume expA/latest"
    )


def test_a_folder_that_was_moved_keeps_its_name(trained: Any, make_run: Any, tmp_path: Path) -> None:
    run = trained("expA")
    moved = tmp_path / "elsewhere"
    os.rename(run.dir, moved)
    assert make_run(name="expA", resume=moved).dir == moved.resolve()


def test_a_name_without_runs_is_said_with_the_nearest(trained: Any, make_run: Any, tmp_path: Path) -> None:
    trained("maskrcnn")
    with pytest.raises(JournalError) as caught:
        make_run(name="maskrcn", resume="latest")
    assert str(caught.value) == (
        f"no runs of 'maskrcn' under {tmp_path / 'runs'}/ yet (say --dir, or dir=, for another place)"
        " (did you mean 'maskrcnn'?)"
    )


@pytest.mark.parametrize(
    ("end", "planned", "goes_on"),
    [("finished", None, False), ("finished", 2, False), ("finished", 3, True), ("stopped", 2, True),
     ("failed", 2, True), ("crashed", None, True)],
)  # fmt: skip
def test_auto_goes_on_with_what_is_unfinished(
    trained: Any, make_run: Any, end: str, planned: int | None, goes_on: bool
) -> None:
    trained("other", end="crashed")
    run = trained("exp", end=end, planned=planned)
    trained("other", end="crashed")
    again = make_run(name="exp", resume=AUTO, epochs=planned)
    assert (again.dir == run.dir) is goes_on
    assert again.name == "exp"
    if goes_on:
        assert (again.epoch, again.next_step) == (3, 2)
        assert again.checkpoint == run.dir / "checkpoints" / "epoch_002.pth"
    else:
        assert (again.epoch, again.next_step, again.checkpoint) == (1, 0, None)


def test_auto_goes_on_from_the_newest_checkpoint_that_is_there(
    trained: Any, make_run: Any, records: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    run = trained("exp", 3, end="crashed")
    (run.dir / "checkpoints" / "epoch_003.pth").unlink()
    caplog.set_level("INFO", "losslog")
    again = make_run(name="exp", resume=AUTO)
    assert f"resuming {run.id} from epoch_002.pth at epoch 3" in caplog.messages
    again.log_batch({"a": 0.5})
    again.close()
    assert [each.data for each in records(run.dir) if each.hook == "on_resume"] == [{"epoch": 2, "step": 1}]
    assert [each.data["step"] for each in records(run.dir) if each.hook == "on_batch_losses"] == [0, 1, 2, 2]


def test_auto_where_there_is_no_run_yet_begins_one(make_run: Any, tmp_path: Path) -> None:
    run = make_run(name="exp", resume=AUTO)
    assert run.dir.parent == (tmp_path / "runs" / "exp").resolve()
    assert resumed(AUTO, tmp_path / "nowhere", None, "exp").folder is None


@pytest.mark.parametrize("command", ["show", "diagnose"])
def test_every_command_knows_the_same_names(
    trained: Any, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = trained("expA", 1), trained("expA", 1)
    trained("expB", 1)
    for said, run in (("expA", second), ("expA/latest", second), (first.id, first), (str(first.dir), first)):
        capsys.readouterr()
        assert main([command, said, "--dir", str(tmp_path / "runs")]) == 0
        out = capsys.readouterr().out
        assert run.id in out or command == "diagnose"


def test_a_run_of_another_name_is_said_to_be_one(trained: Any, make_run: Any) -> None:
    other = trained("dogs")
    for run in ("dogs", other.id, other.id[:-1]):
        with pytest.raises(JournalError, match="is a run of 'dogs', not of 'cats'"):
            make_run(name="cats", resume=run)


def test_an_epoch_left_before_its_end_is_ended_by_the_resume(make_run: Any) -> None:
    run = make_run(name="left")
    for step in range(6):
        run.log_batch({"a": float(step)}, epoch=1 + step // 3, lr=0.1)
        if step == 2:
            run.end_epoch()
    run.end_at_exit("crashed", None)
    again = make_run(name="left", resume="left", resume_epoch=2, resume_step=4)  # the last batch is superseded
    assert again.epoch == 3
    again.log_batch({"a": 9.0})
    again.end_epoch()
    again.close()
    ends = [each.data for each in losslog.history.records(again.dir) if each.hook == "on_epoch_end"]
    assert [(each["epoch"], each["losses"]) for each in ends] == [(1, {"a": 1.0}), (2, {"a": 3.5}), (3, {"a": 9.0})]
    assert (ends[1]["step"], ends[1]["lr"]) == (4, 0.1)


def test_an_epoch_that_is_gone_on_with_has_its_first_batches_in_its_means(make_run: Any) -> None:
    run = make_run(name="amid")
    for step in range(4):
        run.log_batch({"a": float(step)})
    run.end_at_exit("crashed", None)
    again = make_run(name="amid", resume="amid", resume_step=1)
    again.log_batch({"a": 5.0})
    again.end_epoch()
    again.close()
    ends = [each.data for each in losslog.history.records(again.dir) if each.hook == "on_epoch_end"]
    assert [(each["epoch"], each["losses"]) for each in ends] == [(1, {"a": 2.0})]
