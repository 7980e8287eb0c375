"""``losslog.attach(..., non_finite="trace")``: the first output that is not finite is named, and training goes on as
it would have."""

from __future__ import annotations

import pytest
import torch

BAD = 3


class Spoiled(torch.nn.Module):
    """Divides by what the batch says."""

    def forward(self, x, by):
        return x / by


class Net(torch.nn.Module):
    """Batch norm and dropout before, a place for NaN in between; two losses, or an output."""

    def __init__(self, place):
        super().__init__()
        torch.manual_seed(0)
        self.place = place
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2))
        self.spoil = Spoiled()
        self.head = torch.nn.Linear(8, 1)

    def forward(self, x, targets):
        by = x.new_tensor(1.0 if all(each["by"] for each in targets) else 0.0)
        hidden = self.body(x)
        if self.place == "module":
            hidden = self.spoil(hidden, by)
        out = self.head(hidden / by if self.place == "between" else hidden)
        if self.place.startswith("outside"):
            return out
        loss = (out**2).mean()
        return {"loss_a": loss / by if self.place == "loss" else loss, "loss_b": out.abs().mean()}


def batches(bad=(BAD,), count=6):
    torch.manual_seed(1)
    return [(torch.randn(8, 4), [{"by": step not in bad, "image_id": 10 * step + place, "boxes": torch.ones(0, 4)}
                                 for place in range(8)]) for step in range(count)]  # fmt: skip


def plain(model, x, targets, step):
    losses = model(x, targets)
    return sum(losses.values()) if isinstance(losses, dict) else losses


def own_criterion(model, x, targets, step):
    return torch.nn.functional.mse_loss(model(x, targets), torch.full((8, 1), float("nan") if step == BAD else 1.0))


def module_criterion(model, x, targets, step):
    return torch.nn.MSELoss()(model(x, targets), torch.full((8, 1), float("nan") if step == BAD else 1.0))


def own_arithmetic(model, x, targets, step):
    return sum(model(x, targets).values()) / (0.0 if step == BAD else 1.0)


def autocast(model, x, targets, step):
    with torch.autocast("cpu", torch.bfloat16):
        return sum(model(x, targets).values())


def train(model, watch, loss_of=plain, *, accumulate=1, scaler=None, data=None, **more):
    torch.manual_seed(2)
    model.spoil.register_full_backward_hook(lambda module, given, got: tuple(
        None if each is None else each.nan_to_num(0, 0, 0) for each in given))  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run = watch(model, optimizer, **more)
    for step, (x, targets) in enumerate(data or batches()):
        loss = loss_of(model, x, targets, step)
        (scaler.scale(loss) if scaler else loss).backward()
        if (step + 1) % accumulate == 0:
            if scaler:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
            optimizer.zero_grad()
    run.close()
    return run, [*(each.clone() for each in model.state_dict().values()), torch.get_rng_state()]


def traced(run, read):
    return [each for each in read(run, "on_alert") if each.get("cause") == "not_finite_in"]


@pytest.mark.parametrize(
    ("place", "loss_of", "module", "says"),
    [
        ("module", plain, "spoil", "that of spoil (Spoiled): NaN in"),
        ("module", autocast, "spoil", "that of spoil (Spoiled): NaN in"),
        ("between", plain, "head", "it arises between modules after body (Sequential)"),
        ("loss", plain, "", "(loss_a)"),
        ("outside", own_criterion, None, "Every module's output was finite"),
        ("outside", module_criterion, None, "What MSELoss is given is not finite: its input[1]"),
        ("none", own_arithmetic, None, "Every module's output was finite"),
    ],
)
def test_the_first_output_that_is_not_finite_is_named(watch, read, place, loss_of, module, says):
    run, _ = train(Net(place), watch, loss_of, non_finite="trace")
    (alert,) = traced(run, read)
    assert (alert["step"], alert["level"]) == (BAD, "error")
    assert alert["evidence"].get("module") == module
    assert says in alert["text"]
    assert alert["evidence"]["images"] == [30, 31, 32, 33, 34, 35, 36, 37]


@pytest.mark.parametrize("more", [{}, {"accumulate": 2}, {"loss_of": autocast}], ids=["plain", "accumulated", "amp"])
@pytest.mark.parametrize("bad", [(), (BAD,)], ids=["healthy", "spoiled"])
def test_what_is_trained_is_as_with_warn(watch, read, more, bad):
    _, before = train(Net("module"), watch, data=batches(bad), **more)
    run, after = train(Net("module"), watch, data=batches(bad), non_finite="trace", **more)
    assert len(traced(run, read)) == len(bad)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, after, strict=True))
    assert not read(run, "on_epoch_end")[-1].get("val_loss")


def test_a_parameter_that_was_lost_before_is_named(watch, read):
    model = Net("none")
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    run, _ = train(model, watch, non_finite="trace")
    (alert,) = traced(run, read)
    assert (alert["step"], alert["evidence"]["module"]) == (0, "head.weight")


def test_what_a_scaler_makes_infinite_is_no_alert(watch, read):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    run, _ = train(Net("none"), watch, lambda *each: 1e20 * plain(*each), scaler=scaler, non_finite="trace")
    assert not traced(run, read)


def test_a_loop_that_leaves_before_its_backward_pass_is_told(watch, read):
    model = Net("module")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run = watch(model, optimizer, non_finite="trace")
    for x, targets in batches():
        loss = sum(model(x, targets).values())
        if not torch.isfinite(loss):
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    run.close()
    (alert,) = traced(run, read)
    assert alert["evidence"]["module"] == "spoil"


def test_what_it_may_be(watch):
    model = Net("none")
    with pytest.raises(ValueError, match="non_finite must be 'warn', 'stop' or 'trace', got 'skip'"):
        watch(model, torch.optim.SGD(model.parameters(), lr=0.01), non_finite="skip")
