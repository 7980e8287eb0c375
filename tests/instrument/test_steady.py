"""Steps that are not listened to since they are like those before: recorded is what listening would have told."""

import pytest
import torch

from losslog.instrument import listeners, outputs, steady

CHANGES = 30  # the step from which on the loop does something else
STEPS = 50


class Several(torch.nn.Module):
    """Four losses, each of a node of its own; or five, of which one is tiny."""

    def __init__(self, scales=(1, 2, 3, 4)):
        super().__init__()
        self.linear, self.head = torch.nn.Linear(4, 5), torch.nn.Linear(5, 5)
        self.scales = scales

    def forward(self, x):
        y = self.head(self.linear(x).tanh()) + 3.0
        return {f"loss_{'abcde'[place]}": y[:, place].square().mean() * scale
                for place, scale in enumerate(self.scales)}  # fmt: skip


def summed(losses, step):
    sum(losses.values()).backward()


def weighted(losses, step):
    (5 * losses["loss_a"] + losses["loss_b"] / 2 - losses["loss_c"] + losses["loss_d"]).backward()


def scheduled(losses, step):
    (losses["loss_a"] + losses["loss_b"] + step * losses["loss_c"] + losses["loss_d"]).backward()


def another_weight(losses, step):
    (losses["loss_a"] + losses["loss_b"] + losses["loss_c"] + (1 + (step >= CHANGES)) * losses["loss_d"]).backward()


def detached(losses, step):
    parts = dict(losses)
    if step >= CHANGES:
        parts["loss_b"] = parts["loss_b"].detach()
    sum(parts.values()).backward()


def left_out(losses, step):
    sum(list(losses.values())[step >= CHANGES :]).backward()


def with_a_penalty(losses, step):
    total = sum(losses.values())
    (total + 0.1 * total.sqrt() if step >= CHANGES else total).backward()


def norm(losses, step):
    torch.stack(list(losses.values())).square().sum().sqrt().backward()


def one_by_one(losses, step):
    if step < CHANGES:
        summed(losses, step)
    else:
        for each in losses.values():
            each.backward(retain_graph=True)


def twice(losses, step):
    total = sum(losses.values())
    if step >= CHANGES:
        total.backward(retain_graph=True)
    total.backward()


def tiny(losses, step):
    (sum(losses.values()) + (step >= CHANGES) * losses["loss_e"]).backward()


def of_the_inputs(losses, step):
    total = sum(losses.values())
    total.backward(inputs=[each for each in MODEL[-1].parameters()] if step >= CHANGES else None)


MODEL: list[Several] = []
ALIKE = [summed, weighted, another_weight, detached, left_out, with_a_penalty, one_by_one, twice, of_the_inputs]
LOOPS = [*ALIKE, scheduled, norm, tiny]


@pytest.fixture
def ears(monkeypatch):
    """How many hooks were put on losses."""
    made = []

    class Counted(listeners.Ear):
        def __init__(self, *args):
            made.append(args)
            super().__init__(*args)

    monkeypatch.setattr(outputs, "Ear", Counted)
    monkeypatch.setattr(steady, "Ear", Counted)
    return made


@pytest.fixture
def train(watch, read):
    """Trains with a loop; gives what was recorded of each step."""

    def train(loop, micro=1):
        torch.manual_seed(0)
        MODEL[:] = [Several((1, 2, 3, 4, 1e-4) if loop is tiny else (1, 2, 3, 4))]
        optimizer = torch.optim.SGD(MODEL[0].parameters(), 1e-3)
        run = watch(MODEL[0], optimizer)
        for step in range(STEPS):
            optimizer.zero_grad()
            for _ in range(micro + (micro > 1 and step >= CHANGES)):
                loop(MODEL[0](torch.randn(8, 4)), step)
            optimizer.step()
            run.flush()  # what is learnt on the drain thread is known by the next step, however busy the machine is
        run.close()
        return read(run, "on_batch_losses")

    return train


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("loop", LOOPS, ids=lambda each: each.__name__)
def test_what_is_not_listened_to_is_recorded_alike(train, ears, monkeypatch, loop, micro):
    found = train(loop, micro)
    count = len(ears)
    assert loop not in ALIKE or count < 4 * micro * (STEPS - CHANGES // 2)
    monkeypatch.setattr(outputs, "EVERY", 1)  # all outputs are listened to
    heard = train(loop, micro)
    assert len(ears) - count >= STEPS
    assert len(found) == len(heard) == STEPS
    for one, other in zip(found, heard, strict=True):
        assert one.get("weights", {}) == pytest.approx(other.get("weights", {}), rel=1e-5)
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-6)
        assert one["total"] == pytest.approx(other["total"], rel=1e-6)
        assert one.keys() == other.keys()


@pytest.mark.parametrize("loop", [summed, weighted])
def test_a_loop_that_does_the_same_at_every_step_is_hardly_listened_to(train, ears, loop):
    train(loop)
    assert len(ears) <= 4 * 8  # of 4 losses in 50 steps; one output in 61 is listened to in any case


def test_a_loop_of_another_kind_costs_a_look_now_and_then(train, monkeypatch):
    looks = []
    way = steady._way
    monkeypatch.setattr(steady, "_way", lambda *args: looks.append(args) or way(*args))
    train(norm)
    assert len(looks) <= 8


@pytest.mark.parametrize("change", ["goes", "comes", "at random", "another name"])
def test_losses_that_come_and_go_are_no_error(watch, read, change, caplog):
    class Changing(Several):
        step = 0

        def forward(self, x):
            found, late = super().forward(x), self.step >= CHANGES
            gone = {"goes": late, "comes": not late, "at random": self.step % 7 == 5, "another name": False}[change]
            if gone:
                del found["loss_d"]
            if change == "another name" and late:
                found["loss_e"] = found.pop("loss_d") / 2
            return found

    torch.manual_seed(0)
    model = Changing()
    optimizer = torch.optim.SGD(model.parameters(), 0.001)
    run = watch(model, optimizer)
    for model.step in range(STEPS):
        losses = model(torch.randn(8, 4))
        weights = {"loss_e": 3.0, "loss_d": 2.0}
        sum(weights.get(name, 1.0) * each for name, each in losses.items()).backward()
        optimizer.step()
        optimizer.zero_grad()
    run.close()
    assert not [each for each in caplog.messages if "failed" in each]
    for each in read(run, "on_batch_losses"):
        expected = {name: weight for name, weight in (("loss_d", 2.0), ("loss_e", 3.0)) if name in each["losses"]}
        assert {name: round(weight, 4) for name, weight in (each.get("weights") or {}).items()} == expected
