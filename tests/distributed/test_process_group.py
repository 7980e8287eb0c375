"""The engine's process group, with real processes."""

from __future__ import annotations

import pytest

BODY = """
from datetime import timedelta
from losslog.engine import distributed
distributed.TIMEOUT = timedelta(seconds=SECONDS)
with distributed.process_group("cpu") as here:
    try:
        if here.rank == 0:
            time.sleep(5.0)  # as long as the main process evaluates
        dist.barrier()
        waited = True
    except RuntimeError:
        waited = False
tell(waited=waited)
"""


@pytest.mark.parametrize(("seconds", "waited"), [(2, False), (60, True)])
def test_ranks_wait_for_the_main_one_as_long_as_it_says(launch, seconds: int, waited: bool) -> None:
    launched = launch(BODY.replace("SECONDS", str(seconds)))
    assert [launched.told(rank)["waited"] for rank in (0, 1)] == [waited, waited]
