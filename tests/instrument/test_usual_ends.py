"""Loops that do the same for 30 steps, and then something else: each number recorded is the loop's own."""

import math
import threading

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

CHANGES = 30  # the step from which on the loop does something else
STEPS = 45  # fewer than it takes to say that a loss is left out


class Two(torch.nn.Module):
    """Two losses, each of a node of its own."""

    def __init__(self):
        super().__init__()
        self.linear, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
        self.names = ("loss_a", "loss_b")

    def forward(self, x):
        y = self.head(self.linear(x).tanh()) + 2.0
        return {name: y[:, place].square().mean() for place, name in enumerate(self.names)}


class Loop:
    """A loop and its own truth: losses, total and weights of each step."""

    def __init__(self, watch):
        torch.manual_seed(0)
        self.model = Two()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-2)
        self.run = watch(self.model, self.optimizer)
        self.truth = []

    def data(self):
        return torch.randn(8, 4)

    def wrote(self, losses, total, **weights):
        values = {name: each if type(each) is float else each.item() for name, each in losses.items()}
        self.truth.append((values, total if type(total) is float else total.item(), weights))

    def usual(self, x=None):
        losses = self.model(self.data() if x is None else x)
        total = sum(losses.values())
        self.wrote(losses, total)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()

    def unusual(self, step):
        raise NotImplementedError

    def train(self):
        for step in range(STEPS):
            if step < CHANGES:
                self.usual()
            else:
                self.unusual(step)


class Weight(Loop):
    def unusual(self, step):
        losses = self.model(self.data())
        weight = 2.0 + step
        total = losses["loss_a"] + weight * losses["loss_b"]
        self.wrote(losses, total, loss_b=weight)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()


class Dropped(Loop):
    def unusual(self, step):
        losses = self.model(self.data())
        self.wrote({"loss_a": losses["loss_a"]}, losses["loss_a"])
        self.optimizer.zero_grad()
        losses["loss_a"].backward()
        self.optimizer.step()


class Detached(Loop):
    def unusual(self, step):
        losses = self.model(self.data())
        total = losses["loss_a"] + losses["loss_b"].detach()
        self.wrote(losses, total)  # a value that is in the total stays
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()


class Second(Loop):
    other = None

    def unusual(self, step):
        self.other = self.other or torch.optim.SGD(self.model.head.parameters(), 1e-3)
        self.usual()
        self.other.step()


class Scaled(Loop):
    """Every fifth step is skipped, since its gradients are infinite."""

    scaler = None

    def unusual(self, step):
        self.scaler = self.scaler or torch.amp.GradScaler("cpu", init_scale=8.0)
        losses = self.model(self.data())
        total = sum(losses.values())
        self.optimizer.zero_grad()
        self.scaler.scale(total).backward()
        if step % 5:
            self.wrote(losses, total)
        else:
            self.model.head.weight.grad.fill_(math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()


class Evaluating(Loop):
    def unusual(self, step):
        self.usual()
        self.model.eval()
        with torch.no_grad():
            self.model(self.data())
        self.model.train()


class Accumulating(Loop):
    def unusual(self, step):
        several, totals = [], []
        self.optimizer.zero_grad()
        for _ in range(2):
            several.append(self.model(self.data()))
            totals.append(sum(several[-1].values()) / 2)
            totals[-1].backward()
        means = {name: sum(each[name].item() for each in several) / 2 for name in self.model.names}
        self.wrote(means, sum(each.item() for each in totals))
        self.optimizer.step()


class Renamed(Loop):
    def unusual(self, step):
        self.model.names = ("loss_c", "loss_b") if step % 2 else ("loss_a", "loss_d")
        self.usual()


class TwoForwards(Loop):
    def unusual(self, step):
        one, other = self.model(self.data()), self.model(self.data())
        total = sum(one.values()) + sum(other.values())
        self.wrote({name: one[name].item() + other[name].item() for name in one}, total)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()


class UnusedForward(Loop):
    def unusual(self, step):
        self.usual()
        self.model(self.data())


class Thread(Loop):
    def unusual(self, step):
        losses = self.model(self.data())
        total = sum(losses.values())
        self.wrote(losses, total)
        self.optimizer.zero_grad()
        thread = threading.Thread(target=total.backward)
        thread.start()
        thread.join()
        self.optimizer.step()


class NotANumber(Loop):
    """One step's loss is none; its gradients are left out by the loop."""

    def unusual(self, step):
        x = self.data()
        if step % 4 == 0:
            x[0, 0] = math.nan
        losses = self.model(x)
        total = sum(losses.values())
        self.wrote(losses, total)
        self.optimizer.zero_grad()
        total.backward()
        for each in self.model.parameters():
            each.grad.nan_to_num_()
        self.optimizer.step()


class Rate(Loop):
    def unusual(self, step):
        self.optimizer.param_groups[0]["lr"] = 1e-2 / step
        self.usual()


class Frozen(Loop):
    def unusual(self, step):
        self.model.linear.requires_grad_(False)
        self.usual()


class Epochs(Loop):
    """Epochs of ten steps by a loader; the last 15 steps are of two other loaders."""

    def train(self):
        self.epochs = []
        for epoch in range(3):
            self.over(10, epoch + 1)
        self.loader = None
        self.over(15, None)

    loader = None

    def over(self, count, epoch):
        self.loader = self.loader or DataLoader(TensorDataset(torch.randn(8 * count, 4)), batch_size=8)
        for (x,) in self.loader:
            self.epochs.append(epoch)
            self.usual(x)


LOOPS = [Weight, Dropped, Detached, Second, Scaled, Evaluating, Accumulating, Renamed, TwoForwards, UnusedForward,
         Thread, NotANumber, Rate, Frozen, Epochs]  # fmt: skip


@pytest.mark.parametrize("kind", LOOPS, ids=lambda each: each.__name__.lower())
def test_what_is_recorded_is_the_loops_own_when_it_does_something_else(watch, read, kind):
    loop = kind(watch)
    loop.train()
    loop.run.close()
    found = read(loop.run, "on_batch_losses")
    assert [each["step"] for each in found] == [*range(len(loop.truth))]
    for each, (losses, total, weights) in zip(found, loop.truth, strict=True):
        numbers = {name: math.nan if value is None else float(value) for name, value in each["losses"].items()}
        assert numbers == pytest.approx(losses, rel=1e-5, nan_ok=True), each
        assert float(each["total"]) == pytest.approx(total, rel=1e-5, nan_ok=True), each
        assert (each.get("weights") or {}) == pytest.approx(weights, rel=1e-5), each
    if kind is Epochs:
        known = [(each["epoch"], epoch) for each, epoch in zip(found, loop.epochs, strict=True) if epoch]
        assert all(one == other for one, other in known)
    if kind is Rate:
        rates = [each["lr"] for each in found]
        assert rates == pytest.approx([1e-2 / step if step >= CHANGES else 1e-2 for step in range(STEPS)])
