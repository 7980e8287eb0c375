"""Steps that one unit takes are recorded as they would be by all of the observer; so is whatever ends them."""

import contextlib
import threading

import pytest
import torch

from losslog.instrument import listeners, usual

CHANGES = 25  # the step at which something else happens, at first
STEPS = 45
WHEN = ("before", "given", "backward", "stepped")


class Model(torch.nn.Module):
    """Three losses."""

    def __init__(self):
        super().__init__()
        self.trunk, self.head = torch.nn.Linear(4, 6), torch.nn.Linear(6, 3)
        self.inside = None

    def forward(self, x):
        if self.inside is not None:
            self.inside()
        y = self.head(self.trunk(x).tanh()) + 2.0
        return {f"loss_{'abc'[place]}": y[:, place].square().mean() for place in range(3)}


class Loop:
    """A loop of the textbook's, in which something happens at some steps."""

    def __init__(self, watch, happens, when, seldom, data):
        torch.manual_seed(0)
        self.model, self.other = Model(), Model()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-3)
        self.further = None
        self.run = watch(self.model, self.optimizer)
        self.happens, self.when, self.seldom, self.step = happens, when, seldom, 0
        self.batches = torch.randn(15, 8, 4)
        self.loader = torch.utils.data.DataLoader(self.batches.flatten(0, 1), 8)
        self.data = data

    def at(self, when):
        late = self.step - CHANGES
        if when == self.when and (late == 0 or (not self.seldom and late > 0)):
            self.happens(self)

    def train(self):
        for _ in range(STEPS // len(self.batches)):
            for x in self.loader if self.data == "loader" else list(self.batches):
                self.one(x)
                self.step += 1
                if self.step - CHANGES == 3 and self.happens is breaks_off:
                    return

    def one(self, x):
        self.at("before")
        self.losses = self.model(x)
        self.at("given")
        self.total = sum(self.losses.values())
        self.total.backward()
        self.at("backward")
        self.optimizer.step()
        self.at("stepped")
        self.optimizer.zero_grad()


def nothing(loop):
    pass


def zero_grad(loop):
    loop.optimizer.zero_grad()


def zero_grad_of_the_model(loop):
    loop.model.zero_grad()


def forward(loop):
    loop.model(torch.ones(2, 4))


def validation(loop):
    loop.model.eval()
    with torch.no_grad():
        for x in torch.utils.data.DataLoader(torch.ones(4, 4), 2):
            loop.model(x)
    loop.model.train()


def train(loop):
    loop.model.train()


def end_epoch(loop):
    loop.run.end_epoch()


def another_optimizer(loop):
    loop.further = loop.further or torch.optim.SGD(loop.model.head.parameters(), 1e-3)
    loop.further.step()


def a_step_more(loop):
    loop.optimizer.step()


def with_a_closure(loop):
    if loop.when == "given":  # its graph would be of parameters that are no more
        return

    def closure():
        loop.optimizer.zero_grad()
        total = sum(loop.model(torch.ones(2, 4)).values())
        total.backward()
        return total

    loop.optimizer.step(closure)


def another_model(loop):
    sum(loop.other(torch.ones(2, 4)).values()).backward()


def a_pass_more(loop):
    (2 * sum(loop.model(torch.ones(2, 4)).values())).backward()


def a_criterion(loop):
    torch.nn.functional.mse_loss(loop.model.trunk(torch.ones(2, 4)), torch.zeros(2, 6))
    torch.nn.MSELoss()(loop.model.trunk(torch.ones(2, 4)), torch.zeros(2, 6))


def frozen(loop):
    loop.model.head.requires_grad_(False)


def rate(loop):
    loop.optimizer.param_groups[0]["lr"] *= 0.5


def another_group(loop):
    if len(loop.optimizer.param_groups) < 2:
        loop.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.5})


def changed_in_place(loop):
    with torch.no_grad():
        for each in loop.losses.values():
            each.detach().mul_(7.0)


def in_a_thread(loop):
    def work():
        sum(loop.other(torch.ones(2, 4)).values()).backward()
        loop.optimizer.zero_grad()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def fails_in_backward(loop):
    total = sum(loop.model(torch.ones(2, 4)).values())
    total.register_hook(lambda gradient: 1 / 0)
    with contextlib.suppress(ZeroDivisionError):
        total.backward()


def steps_inside(loop):
    def step(parameter):
        loop.optimizer.step()

    loop.model.trunk.weight.register_post_accumulate_grad_hook(step)


def logs_by_hand(loop):
    loop.run.log_batch({"loss_a": 1.0})


def calls_inside(loop):
    loop.model.inside = lambda: loop.other(torch.ones(2, 4))


def scales(loop):
    torch.amp.GradScaler("cpu").scale(torch.ones((), requires_grad=True) * 2)


def attaches(loop):
    import losslog

    other = losslog.attach(loop.other, torch.optim.SGD(loop.other.parameters(), 0.1), name="o",
                           dir=loop.run.dir.parent, plugins=None)  # fmt: skip
    other.close()


def breaks_off(loop):
    pass


ALL = [
    nothing, zero_grad, zero_grad_of_the_model, forward, validation, train, end_epoch, another_optimizer, a_step_more,
    with_a_closure, another_model, a_pass_more, a_criterion, frozen, rate, another_group, changed_in_place, in_a_thread,
    fails_in_backward, steps_inside, logs_by_hand, calls_inside, scales, attaches, breaks_off,
]  # fmt: skip
EVERYTHING = ("on_batch_losses", "on_epoch_end", "on_metrics", "on_alert")


@pytest.fixture
def record(watch, read, monkeypatch, caplog):
    """What is recorded and said of a loop, and how many steps the unit took."""

    def record(happens, when, seldom, data, *, unit):
        taken = []
        with monkeypatch.context() as patch:
            steps = usual.Usual.steps
            patch.setattr(usual.Usual, "steps", lambda *args: steps(*args) and (taken.append(1) or True))
            if not unit:
                patch.setattr(usual.Usual, "arm", lambda *args: None)
            caplog.clear()
            caplog.set_level("INFO", "losslog")
            loop = Loop(watch, happens, when, seldom, data)
            loop.train()
            loop.run.close()
        assert listeners.armed == []
        found = [(hook, {key: value for key, value in each.items() if key not in ("time", "duration")})
                 for hook in EVERYTHING for each in read(loop.run, hook)]  # fmt: skip
        return found, [each for each in caplog.messages if "->" not in each], len(taken)

    return record


@pytest.mark.sampled(28)
@pytest.mark.parametrize(("data", "seldom"), [("loader", False), ("list", True)])
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("happens", ALL, ids=lambda each: each.__name__)
def test_whatever_ends_usual_steps_is_recorded_as_ever(record, happens, when, data, seldom):
    found, said, taken = record(happens, when, seldom, data, unit=True)
    expected, lines, none = record(happens, when, seldom, data, unit=False)
    assert taken >= 8
    assert not none
    assert found == expected
    assert sorted(said) == sorted(lines)  # of two threads


def test_most_steps_of_a_usual_loop_are_taken(record):
    _, _, taken = record(nothing, "before", False, "loader", unit=True)
    assert taken >= 30


def test_a_loop_that_always_does_something_else_is_seldom_tried(record, monkeypatch):
    tries = []
    monkeypatch.setattr(usual.Usual, "hand_back", lambda self, its=usual.Usual.hand_back: tries.append(1) or its(self))
    record(train, "given", False, "loader", unit=True)
    assert len(tries) <= 10
