"""Means, spreads and ends over several real processes."""

from __future__ import annotations

import math


def test_epoch_means_are_over_all_batches_of_all_ranks(uneven):
    epochs = uneven.records("on_epoch_end")
    assert epochs[0]["losses"] == {"a": 2.2, "only": 5.0}


def test_batches_are_means_over_the_ranks_that_had_the_key(uneven):
    batches = uneven.records("on_batch_losses")
    assert batches[0]["losses"] == {"a": 2.0, "only": 5.0}
    assert batches[0]["spread"] == {"a": [1.0, 3.0], "only": [5.0, 5.0]}
    assert [each["ranks"] for each in batches] == [2] * 20 + [1] * 10 + [2] * 5
    assert [each["step"] for each in batches] == list(range(35))


def test_no_collective_of_ours(uneven):
    assert uneven.told(0)["collectives"] == []
    assert uneven.told(1)["collectives"] == []


def test_one_run_and_one_end(uneven):
    assert len(uneven.journals()) == 1
    assert [each["status"] for each in uneven.records("on_run_end")] == ["finished"]


def test_four_ranks_one_ten_times_higher(launch):
    launched = launch(
        """
dist.init_process_group("gloo")
rank = dist.get_rank()
run = losslog.Run("four", dir=out + "/runs", plugins=None)
for i in range(40):
    run.log_batch({"a": 10.0 if rank == 3 else 1.0})
run.end_epoch()
run.close()
""",
        ranks=4,
    )
    (epoch,) = launched.records("on_epoch_end")
    assert math.isclose(epoch["losses"]["a"], 3.25, rel_tol=1e-12)
    assert launched.records("on_batch_losses")[7]["spread"] == {"a": [1.0, 10.0]}


def test_a_run_made_before_the_process_group(launch):
    launched = launch(
        """
run = losslog.Run("early", dir=out + "/runs", plugins=None)
dist.init_process_group("gloo")
for i in range(10):
    run.log_batch(2.0 * dist.get_rank())
run.end_epoch()
run.close()
"""
    )
    (epoch,) = launched.records("on_epoch_end")
    assert epoch["losses"] == 1.0


def test_a_rank_that_is_late_does_not_hold_the_batch_for_ever(launch):
    launched = launch(
        """
dist.init_process_group("gloo")
rank = dist.get_rank()
run = losslog.Run("late", dir=out + "/runs", plugins=None)
for i in range(3):
    run.log_batch({"a": 1.0 + rank})
    if rank == 1 and i == 0:
        time.sleep(4.0)
run.end_epoch()
run.close()
"""
    )
    assert [each["ranks"] for each in launched.records("on_batch_losses")] == [2, 1, 1]
    assert launched.records("on_epoch_end")[0]["losses"] == {"a": 1.5}


def test_a_rank_that_dies_does_not_hang_the_others_logging(launch):
    launched = launch(
        """
dist.init_process_group("gloo")
rank = dist.get_rank()
run = losslog.Run("dead", dir=out + "/runs", plugins=None)
for i in range(50):
    run.log_batch({"a": 1.0})
    if rank == 1 and i == 20:
        os._exit(0)
run.end_epoch()
began = time.monotonic()
run.close(timeout=8)
tell(took=time.monotonic() - began)
"""
    )
    assert len(launched.records("on_batch_losses")) == 50
    assert "closed without a goodbye of rank 1" in launched.output


def test_a_non_finite_loss_names_its_rank(uneven):
    (alert,) = uneven.records("on_alert")
    assert alert["text"].startswith("[rank 1] a is nan at step 33")
