"""Requests take effect on every rank at the same step."""

from __future__ import annotations

import pytest

STOP = """
dist.init_process_group("gloo")
rank = dist.get_rank()
run = losslog.Run("stop", dir=out + "/runs", plugins=None)
made = 0
for i in range(20000):
    run.log_batch({"a": 1.0})
    made += 1
    time.sleep(0.001)
    if rank == ASKS and i == 300:
        run.request_stop("enough")
    if rank == PAUSED and i == 200:
        time.sleep(10.0)
    if run.should_stop:
        break
run.close()
tell(made=made)
"""


@pytest.mark.parametrize("asks", [0, 1])
def test_a_stop_asked_for_by_any_rank(launch, asks):
    launched = launch(STOP.replace("ASKS", str(asks)).replace("PAUSED", "-1"))
    assert launched.told(0)["made"] == launched.told(1)["made"] < 20000


@pytest.mark.slow
@pytest.mark.parametrize("paused", [0, 2])
def test_four_ranks_of_which_one_pauses_for_ten_seconds(launch, paused):
    launched = launch(STOP.replace("ASKS", "1").replace("PAUSED", str(paused)), ranks=4)
    assert len({launched.told(rank)["made"] for rank in range(4)}) == 1


def test_a_learning_rate_request_takes_effect_at_one_step(launch):
    launched = launch(
        """
dist.init_process_group("gloo")
rank = dist.get_rank()
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
run = losslog.Run("lr", dir=out + "/runs", plugins=None)
seen = []
for i in range(4000):
    run.log_batch({"a": 1.0})
    time.sleep(0.001)
    if rank == 0 and i == 100:
        run.request_lr(0.5)
    run.apply_requests(optimizer)
    seen.append(optimizer.param_groups[0]["lr"])
run.close()
tell(changed=seen.index(0.5), last=seen[-1])
"""
    )
    assert launched.told(0) == launched.told(1)
    assert launched.told(0)["last"] == 0.5
