"""Loops whose data say nothing of epochs: one line at the end that says so; none for others."""

import pytest
import torch

Loader = torch.utils.data.DataLoader


def generator():
    return (torch.randn(4, 4) for _ in range(30))


def single():
    x = torch.randn(4, 4)
    return (x for _ in range(30))


LOST = {"generator": generator, "single": single, "whole": lambda: [[torch.randn(4, 4) for _ in range(3)]] * 30}
KEPT = {
    "loader": lambda: Loader(torch.randn(120, 4), 4),
    "list": lambda: [torch.randn(4, 4) for _ in range(30)],
    "rounds": lambda: [torch.randn(4, 4) for _ in range(3)] * 10,
    "few": lambda: (torch.randn(4, 4) for _ in range(5)),
}


@pytest.mark.parametrize("kind", [*LOST, *KEPT])
@pytest.mark.parametrize("planned", [True, False])
def test_it_is_said_where_it_helps(two, watch, caplog, kind, planned):
    caplog.set_level("INFO", "losslog")
    optimizer = torch.optim.SGD(two.parameters(), 0.01)
    data = {**LOST, **KEPT}[kind]()
    run = watch(two, optimizer, steps_per_epoch=10 if planned else None)
    for x in data:
        optimizer.zero_grad()
        for each in x if isinstance(x, list) else [x]:
            sum(two(each).values()).backward()
        optimizer.step()
    run.close()
    assert sum("steps are one epoch" in each for each in caplog.messages) == (kind in LOST and not planned)
