"""transformers: components, totals, accumulation, evaluation, checkpoints, resume, requests."""

from __future__ import annotations

import pytest

from tests.compat.frameworks.conftest import Workshop, need

need("transformers")
OURS = "__import__('losslog.compat.transformers', fromlist=['x']).LosslogCallback()"


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("loop_hf_detr", {}),
        ("loop_hf_detr", {"AUX": "1"}),
        ("loop_hf_lm", {"ACC": "4"}),
        ("loop_hf_lm", {"NS": "15"}),
        ("loop_hf_custom", {}),
    ],
)
def test_loops_agree_with_their_truth(workshop: Workshop, name: str, environment: dict[str, str]) -> None:
    workshop.loop(name, ("callbacks=[CB()]", f"callbacks=[CB(), {OURS}]"), **environment)
    assert workshop.data("on_run_end")[0]["status"] == "finished"
