"""What `losslog.attach` adds to a step, against the loop's own ``.item()`` calls: ``python -m benchmarks.attach``.

A small network with five losses trains in blocks that take turns: bare, with ``.item()`` on the total, on the total and
all five components, with `log_batch` in the loop, and attached. What a way adds is its block's median step less the
bare block's in the same round, and the median over rounds; journal and drain thread run beside. Microseconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

import losslog

NAMES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")


class Network(torch.nn.Module):
    """Five losses from one linear layer; ``inner`` modules are called besides, as a detector's many parts are."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 5)
        self.parts = torch.nn.ModuleList(torch.nn.Identity() for _ in range(inner))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        for part in self.parts:
            x = part(x)
        return dict(zip(NAMES, self.linear(x).square().mean(0).unbind(), strict=True))


def block(network: Network, optimizer: torch.optim.Optimizer, steps: int, read: Callable[[Any, Any], Any]) -> float:
    batch = torch.ones(8, 64)
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        losses = network(batch)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        read(total, losses)
        times.append(time.perf_counter() - began)
    return 1e6 * statistics.median(times)


def nothing(total: Any, losses: Any) -> None:
    return None


def one_item(total: Any, losses: Any) -> None:
    total.item()


def six_items(total: Any, losses: Any) -> None:
    total.item()
    for loss in losses.values():
        loss.item()


def measure(rounds: int, steps: int, inner: int) -> dict[str, float]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Network(inner)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-9)  # losses stay: what is next to nothing is listened to
    block(network, optimizer, 500, nothing)
    added: dict[str, list[float]] = {
        name: [] for name in (".item() of the total", ".item() of all six", "log_batch", "attach")
    }
    bare_times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            bare = block(network, optimizer, steps, nothing)
            bare_times.append(bare)
            added[".item() of the total"].append(block(network, optimizer, steps, one_item) - bare)
            added[".item() of all six"].append(block(network, optimizer, steps, six_items) - bare)
            with losslog.Run("bench", folder, plugins=None) as run:
                block(network, optimizer, 20, lambda total, losses: run.log_batch(losses))
                added["log_batch"].append(
                    block(network, optimizer, steps, lambda total, losses: run.log_batch(losses)) - bare
                )
                run.flush()
            with losslog.attach(network, optimizer, name="bench", dir=folder, plugins=None) as run:
                block(network, optimizer, 20, nothing)  # the run's own start
                added["attach"].append(block(network, optimizer, steps, nothing) - bare)
                run.flush()
    return {
        "bare step": statistics.median(bare_times),
        **{name: statistics.median(each) for name, each in added.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--inner", type=int, default=120, help="modules inside the model")
    found = measure(**vars(parser.parse_args()))
    for name, value in found.items():
        print(f"{name:24s} {value:8.1f} us")
    print(f"attach / .item() of all six  {found['attach'] / max(found['.item() of all six'], 0.1):.0f}")
    print(f"attach / bare step           {found['attach'] / found['bare step']:.1%}")


if __name__ == "__main__":
    main()
