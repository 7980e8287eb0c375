"""The engine measures gradient shares where it is asked to, and trains the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import losslog  # noqa: E402
from losslog import engine  # noqa: E402
from losslog.history import series  # noqa: E402


def train(model: Any, loader: Any, run: losslog.Run, **more: Any) -> list[Any]:
    """Two epochs of six batches; the weights, buffers and random state they end in."""
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with run:
        engine.fit(model, optimizer, loader, epochs=2, device="cpu", run=run, checkpoint_every=0, **more)
    return [each.clone() for each in model.state_dict().values()] + [torch.get_rng_state()]


@pytest.mark.parametrize(
    "more",
    [{}, {"accumulate": 3}, {"amp": torch.bfloat16}, {"clip_norm": 1.0}, {"non_finite": "skip"}],
    ids=["plain", "accumulated", "bfloat16", "clipped", "skip"],
)
def test_weights_are_the_same_to_the_last_bit(
    two_losses: Any, loader: Any, open_run: Callable[..., losslog.Run], more: dict[str, Any]
) -> None:
    start = {name: each.clone() for name, each in two_losses.state_dict().items()}
    before = train(two_losses, loader, open_run(), **more)
    two_losses.load_state_dict(start)
    run = open_run()
    after = train(two_losses, loader, run, gradients_every=2, **more)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    found = {tag: points for tag, points in series(run.dir).items() if tag.startswith("grad_share/")}
    steps = 4 if more.get("accumulate") else 12
    assert {*found} == {"grad_share/loss_left", "grad_share/loss_right"}
    for points in found.values():
        assert [*points] == [*range(0, steps, 2)]
    sums = [sum(each) for each in zip(*(points.values() for points in found.values()), strict=True)]
    assert sums == pytest.approx([1.0] * len(sums))


def test_off_by_default(two_losses: Any, loader: Any, open_run: Callable[..., losslog.Run]) -> None:
    run = open_run()
    train(two_losses, loader, run)
    assert not [tag for tag in series(run.dir) if tag.startswith("grad_share/")]
