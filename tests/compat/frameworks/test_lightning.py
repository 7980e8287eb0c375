"""Lightning: components, totals, epochs, validation, checkpoints, resume, ranks, requests."""

from __future__ import annotations

import pytest

from tests.compat.frameworks.conftest import Workshop, need

need("lightning")
ADAPTER = "from losslog.compat.lightning import LosslogCallback\n"
TRAINER = (
    "L.Trainer(",
    "L.Trainer(callbacks=[__import__('losslog.compat.lightning', fromlist=['x']).LosslogCallback()], ",
)


@pytest.mark.parametrize("name", ["loop_pl_dict", "loop_pl_functional", "loop_map"])
def test_loops_agree_with_their_truth(workshop: Workshop, name: str) -> None:
    workshop.loop(name, TRAINER)
