"""A GradScaler that skips most steps is said, with what it was that was not finite; a new one that looks for its scale
is not."""

from __future__ import annotations

import pytest
import torch

import losslog
from losslog import engine
from losslog.history import records


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)

    def forward(self, x):
        y = self.head(self.body(x))
        return {"loss_a": y[:, 0].square().mean(), "loss_b": y[:, 1].abs().mean()}


def spoils(net, which):
    """Gradients of the head that are infinite at these steps."""
    count = [0]

    def hook(gradient):
        count[0] += 1
        return gradient * float("inf") if which(count[0] - 1) else gradient

    net.head.bias.register_hook(hook)


def train(watch, which, steps, init=1024.0):
    net = Net()
    optimizer, scaler = torch.optim.SGD(net.parameters(), 0.01), torch.amp.GradScaler("cpu", init_scale=init)
    spoils(net, which)
    run = watch(net, optimizer)
    torch.manual_seed(1)
    for _ in range(steps):
        scaler.scale(sum(net(torch.randn(8, 4)).values())).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    run.close()
    return run


def skipped(run):
    return [each.data for each in records(run.dir) if each.data.get("cause") == "scaler_skips"]


@pytest.mark.parametrize(("which", "count"), [(lambda n: n >= 30, 20), (lambda n: n >= 30 and n % 4, 20)])
def test_most_steps_skipped_are_said_once(watch, which, count):
    run = train(watch, which, 300)
    (alert,) = skipped(run)
    assert alert["level"] == "warning"
    assert alert["text"].startswith(f"{count} of the last 40 steps were skipped")
    assert "last those of head.bias" in alert["text"]
    assert alert["evidence"]["gradients"] == ["head.bias"]


def test_a_scaler_that_gives_up_from_the_start(watch):
    (alert,) = skipped(train(watch, lambda n: True, 60))
    assert alert["evidence"]["scale"] < 1


def test_a_new_scaler_that_looks_for_its_scale_is_no_news(watch):
    assert skipped(train(watch, lambda n: n < 36, 120, init=2.0**60)) == []


def test_now_and_then_is_no_news(watch):
    assert skipped(train(watch, lambda n: n % 5 == 0, 200)) == []


def test_what_was_computed_is_recorded_though_the_scale_is_0(watch, caplog):
    run = train(watch, lambda n: n >= 20, 400)
    assert len(skipped(run)) == 1
    assert not [each for each in caplog.messages if "internal error" in each or "from outside" in each]


def test_by_the_engine(tmp_path):
    net, run = Net(), losslog.Run("t", tmp_path, plugins=None)
    spoils(net, lambda n: n >= 5)
    data = [torch.randn(8, 4) for _ in range(60)]
    with run:
        optimizer = torch.optim.SGD(net.parameters(), 0.01)
        engine.fit(net, optimizer, data, epochs=1, device="cpu", run=run, checkpoint_every=0, amp=torch.float16,
                   forward=lambda model, batch: model(batch))  # fmt: skip
    (alert,) = skipped(run)
    assert "head.bias" in alert["text"]
