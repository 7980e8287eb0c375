"""What adapters share, without a framework: names, versions, the window, epochs, resume."""

from __future__ import annotations

import json
import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from losslog.compat.base import Guest, Loop, contained
from losslog.compat.naming import apart, is_loss, is_number, plain_name, require

PACKAGE = Path(__file__).parents[2] / "losslog" / "compat"


def journal(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    (file,) = folder.rglob("journal.jsonl")
    return [(each["hook"], each["data"]) for each in map(json.loads, file.read_text("ascii").splitlines())]


def data(folder: Path, hook: str) -> list[dict[str, Any]]:
    return [found for name, found in journal(folder) if name == hook]


@pytest.fixture
def loop(tmp_path: Path) -> Any:
    made = Loop({"dir": tmp_path, "name": "run", "plugins": None}, config={"a": 1}, epochs=2)
    yield made
    made.end()


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("train/loss_cls", "loss_cls"),
        ("train_loss", "loss"),
        ("loss_box_step", "loss_box"),
        ("loss", "loss"),
        ("train_", "train_"),
    ],
)
def test_where_a_value_was_logged_is_no_part_of_its_name(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_a_loss_has_the_word_in_its_name_or_a_gradient() -> None:
    graded = torch.ones((), requires_grad=True)
    assert is_loss("train_LOSS")
    assert is_loss("kl", graded)
    assert not is_loss("kl", 1.0)
    assert not is_loss("accuracy", graded)


def test_numbers_are_told_from_the_rest() -> None:
    assert all(map(is_number, (1, 1.5, torch.tensor(1.0), torch.ones(1))))
    assert not any(map(is_number, (True, "1", None, torch.ones(2), torch.tensor(True), [1])))


def test_an_evaluation_is_told_apart() -> None:
    assert apart({"val/loss_a": 1.0, "val_acc": 2.0, "eval_note": "x"}) == ({"loss_a": 1.0}, {"acc": 2.0})


def test_a_framework_that_is_missing_or_too_old_is_named_with_the_fix() -> None:
    with pytest.raises(
        ImportError, match=r"needs nothing-like-it >= 2.0: it is not installed. pip install 'losslog\[x\]'"
    ):
        require("nothing-like-it", "2.0", "x")
    with pytest.raises(ImportError, match=r"needs pytest >= 999: pytest [\d.]+ is installed"):
        require("pytest", "999", "x")
    require("pytest", "1", "x")


def train(loop: Loop, layer: Any, optimizer: Any, batches: int, divided: int = 1) -> list[dict[str, float]]:
    truth = []
    for _ in range(batches):
        out = layer(torch.ones(2, 2))
        parts = {"loss_a": out[:, 0].square().mean(), "kl": out[:, 1].abs().mean()}
        (sum(parts.values()) / divided).backward()  # type: ignore[union-attr]
        for name, value in parts.items():
            loop.window.value(f"train/{name}", value)
        loop.window.value("speed", 7.0)
        loop.window.batch()
        truth.append({name: value.item() for name, value in parts.items()})
    optimizer.step()
    optimizer.zero_grad()
    loop.step()
    return truth


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_a_window_is_the_mean_of_its_batches_and_the_total_what_went_backward(
    loop: Loop, tmp_path: Path, batches: int
) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    loop.window.divided = 4
    truth = train(loop, layer, optimizer, batches, divided=4)
    loop.end()
    (batch,) = data(tmp_path, "on_batch_losses")
    means = {name: sum(each[name] for each in truth) / batches for name in truth[0]}
    assert batch["losses"] == pytest.approx(means)
    assert batch["total"] == pytest.approx(sum(means.values()))
    assert batch["lr"] == 0.1
    assert data(tmp_path, "on_metrics")[0]["metrics"] == {"speed": 7.0}


class Net(torch.nn.Module):
    """Gives losses itself, of which the loop names others."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x: Any) -> dict[str, Any]:
        out = self.layer(x)
        return {"loss_a": out[:, 0].square().mean(), "loss_b": out[:, 1].abs().mean()}


def test_what_a_framework_names_step_after_step_is_what_counts_until_it_names_none(loop: Loop, tmp_path: Path) -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    truth = []
    for step in range(70):
        losses = net(torch.rand(2, 2))
        total = losses["loss_a"] + 2 * losses["loss_b"]
        optimizer.zero_grad()
        total.backward()
        if step < 60:
            loop.window.value("loss_named", losses["loss_a"])
        loop.window.batch()
        optimizer.step()
        loop.step()
        truth.append({name: value.item() for name, value in (losses | {"total": total}).items()})
        if step in (29, 65):
            loop.end_epoch()
    loop.end()
    batches = data(tmp_path, "on_batch_losses")
    assert [each["total"] for each in batches] == pytest.approx([each["total"] for each in truth])
    for batch, true in zip(batches[:60], truth, strict=False):
        assert batch["losses"] == pytest.approx({"loss_named": true["loss_a"]})
    for batch, true in zip(batches[61:], truth[61:], strict=True):
        assert batch["losses"] == pytest.approx({name: true[name] for name in ("loss_a", "loss_b")})
        assert batch["weights"] == pytest.approx({"loss_b": 2.0})
    measured = [each["step"] for each in data(tmp_path, "on_metrics") if "grad_norm/layer" in each["metrics"]]
    assert measured == [0, 30, 66]


def test_the_earlier_of_two_validations_becomes_metrics(loop: Loop, tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    loop.evaluated({"val_loss": 9.0, "val_acc": 0.1})
    train(loop, layer, optimizer, 1)
    loop.evaluated({"val_loss": 1.0})
    train(loop, layer, optimizer, 1)
    loop.evaluated({"val_loss": 2.0, "val_acc": 0.5})
    loop.end_epoch()
    loop.end_epoch()  # one without a step is none
    loop.end()
    assert [each["val_loss"] for each in data(tmp_path, "on_epoch_end")] == [2.0]
    assert {"val/loss": 1.0} in [each["metrics"] for each in data(tmp_path, "on_metrics")]
    assert [(each["epoch"], each["metrics"]) for each in data(tmp_path, "on_eval")] == [
        (0, {"acc": 0.1, "loss": 9.0}),
        (1, {"acc": 0.5}),
    ]


def test_an_epoch_that_an_error_broke_off_is_not_ended(loop: Loop, tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    train(loop, layer, torch.optim.SGD(layer.parameters(), lr=0.1), 1)
    loop.end(ValueError("broken"))
    assert data(tmp_path, "on_epoch_end") == []
    assert data(tmp_path, "on_run_end")[0]["status"] == "failed"


def kept_amid(loop: Loop) -> tuple[Any, Any, Any]:
    """Trains an epoch, keeps the state, and trains a step more."""
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    train(loop, layer, optimizer, 1)
    loop.end_epoch()
    state = loop.state()
    train(loop, layer, optimizer, 1)
    return layer, optimizer, state


def test_a_checkpoints_state_goes_on_with_its_run(loop: Loop, tmp_path: Path) -> None:
    layer, optimizer, state = kept_amid(loop)
    loop.end()
    again = Loop({"dir": tmp_path, "name": "run", "plugins": None}, config={}, past=state)
    train(again, layer, optimizer, 1)
    again.end()
    assert state["epoch"] == 1
    assert [each["step"] for each in data(tmp_path, "on_batch_losses")] == [0, 1, 1]
    assert [(each["epoch"], each["step"]) for each in data(tmp_path, "on_resume")] == [(1, 0)]


def test_a_run_that_an_error_left_open_in_this_process_is_gone_on_with(loop: Loop, tmp_path: Path) -> None:
    layer, optimizer, state = kept_amid(loop)
    again = Loop({"dir": tmp_path, "name": "run", "plugins": None}, config={}, past=state)
    assert loop.closed
    train(again, layer, optimizer, 1)
    again.end_epoch()
    third = Loop({"dir": tmp_path, "name": "run", "plugins": None, "resume": "auto"}, config={}, done=2)
    train(third, layer, optimizer, 1)
    third.end()
    assert [each["step"] for each in data(tmp_path, "on_batch_losses")] == [0, 1, 1, 2]
    assert [(each["epoch"], each["step"]) for each in data(tmp_path, "on_resume")] == [(1, 0), (2, 1)]


def test_a_state_of_a_run_that_is_gone_begins_a_new_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    past = {"run": str(tmp_path / "gone" / "run"), "epoch": 1, "step": 3}
    made = Loop({"dir": tmp_path, "name": "run", "plugins": None}, config={}, past=past)
    made.end()
    assert "cannot be gone on with" in caplog.text
    assert len(list(tmp_path.rglob("journal.jsonl"))) == 1


class Callback(Guest):
    def __init__(self, **options: Any) -> None:
        self.options = options

    @contained
    def fails(self) -> None:
        raise ValueError("ours")


def test_our_errors_stay_ours_and_copies_begin_without_a_training(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    callback = Callback(name="x")
    callback.fails()
    assert caplog.text == ""  # no training, nothing to do
    callback.loop = loop
    callback.fails()
    assert "ValueError: ours" in caplog.text
    copy = pickle.loads(pickle.dumps(callback))
    assert copy.loop is None
    assert copy.options == {"name": "x"}


def test_an_adapter_stays_small() -> None:
    from tests.test_house import code_lines

    shared = {"__init__", "base", "naming", "opening", "quiet", "window", "hearing", "reporting", "torchvision"}
    found = {path.stem: code_lines(path.read_text("utf-8")) for path in PACKAGE.glob("*.py") if path.stem not in shared}
    assert {name: lines for name, lines in found.items() if lines >= 120} == {}


def test_the_extras_and_the_docs_state_the_versions_that_adapters_ask_for() -> None:
    extras = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    page = (PACKAGE.parents[1] / "docs" / "frameworks.md").read_text("utf-8")
    found = {}
    for path in PACKAGE.glob("*.py"):
        bound = re.search(r'^LOWEST: Final = "([\d.]+)"', path.read_text("utf-8"), re.M)
        if bound is not None:
            found[path.stem] = bound[1]
    assert len(found) == 9
    for name, bound in found.items():
        assert extras[name][0].endswith(f">={bound}"), name
        assert f"| {bound} |" in page, name


def test_a_loop_looks_for_optimizers_and_schedulers_only_where_something_is_asked(loop: Any) -> None:
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    assert loop.asked  # the first step: who asks later knows that somebody looks
    assert not loop.should_stop([optimizer])
    assert not loop.asked
    loop.run.request_lr(0.5)
    assert loop.asked
    assert not loop.should_stop([optimizer])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    assert not loop.asked
    loop.run.request_stop("enough")
    assert loop.asked
    assert loop.should_stop([optimizer])


@pytest.mark.parametrize("batches", [1, 2])
def test_what_modules_give_of_a_window_is_the_same_with_and_without_a_shortcut(tmp_path: Path, batches: int) -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            one, other = self.layer(x).square().mean(0).unbind()
            return {"loss_a": one, "loss_b": other}

    model = Two()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loop = Loop({"dir": tmp_path, "name": "run", "plugins": None}, config={}, optimizers=[optimizer])
    loop.window.divided = batches
    true = []
    for _ in range(6):
        seen = []
        optimizer.zero_grad()
        for _ in range(batches):
            losses = model(torch.randn(4, 2))
            ((losses["loss_a"] + 2 * losses["loss_b"]) / batches).backward()
            seen.append([each.item() for each in losses.values()])
            loop.window.batch()
        optimizer.step()
        loop.step()
        true.append([sum(each) / batches for each in zip(*seen, strict=True)])
    loop.end()
    found = data(tmp_path, "on_batch_losses")
    assert [[*each["losses"].values()] for each in found] == [pytest.approx(each, rel=1e-5) for each in true]
    assert [each["total"] for each in found] == [pytest.approx(a + 2 * b, rel=1e-5) for a, b in true]
    assert [each["lr"] for each in found] == [0.01] * 6
