"""What hooks may ask of a run, and how the loop carries it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losslog.control import WAITING, Requests, RunHandle, alert_data, lr_data, scale_lr

torch = pytest.importorskip("torch")


@pytest.fixture
def posted() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def handle(posted: list[Any], tmp_path: Path) -> RunHandle:
    found = RunHandle(
        id="id", name="n", dir=tmp_path, config={"a": {"b": 1}}, source="probe", post=lambda *each: posted.append(each)
    )
    found.handling = ("on_eval", 7)
    return found


def test_an_alert_is_posted_with_its_source(handle: RunHandle, posted: list[Any]) -> None:
    handle.alert("title", "text", "error", component="a", step=3, epoch=1)
    kind, data = posted[0]
    assert kind == "alert"
    assert data == {
        "level": "error", "title": "title", "text": "text", "source": "probe", "component": "a", "step": 3, "epoch": 1,
        "key": "probe/title/7",
    }  # fmt: skip


def test_a_redelivered_record_gives_the_same_key(handle: RunHandle, posted: list[Any]) -> None:
    handle.alert("a")
    handle.handling = ("on_eval", 7)
    handle.alert("a")
    handle.handling = ("on_eval", 8)
    handle.alert("a")
    keys = [data["key"] for _, data in posted]
    assert keys[0] == keys[1] != keys[2]


def test_an_alert_about_an_alert_is_refused(handle: RunHandle, posted: list[Any]) -> None:
    handle.handling = ("on_alert", 7)
    with pytest.raises(ValueError, match="while handling on_alert"):
        handle.alert("a")
    assert posted == []


def test_an_unknown_level_is_refused(handle: RunHandle) -> None:
    with pytest.raises(ValueError, match="alert level 'fatal'"):
        handle.alert("a", level="fatal")


def test_whatever_a_plugin_puts_into_an_alert_can_be_written() -> None:
    data = alert_data(3, None, "info", "probe", 5, component=4, step=np.int64(3), epoch=torch.tensor(2))  # type: ignore[arg-type]
    assert json.loads(json.dumps(data)) == {
        "level": "info", "title": "3", "text": "None", "source": "probe", "key": "5", "component": "4", "step": 3,
        "epoch": 2,
    }  # fmt: skip


@pytest.mark.parametrize("step", ["3", 1.5, True], ids=repr)
def test_a_step_that_is_no_whole_number_is_refused(step: Any) -> None:
    with pytest.raises(TypeError, match="step must be a whole number"):
        alert_data("a", "", "info", "probe", "k", step=step)


def test_the_config_a_plugin_gets_is_its_own(tmp_path: Path) -> None:
    config = {"a": {"b": 1}}
    first = RunHandle(id="", name="", dir=tmp_path, config=config, source="", post=lambda *each: None)
    first.config["a"]["b"] = 2  # type: ignore[index]
    assert config == {"a": {"b": 1}}


def test_requests_from_one_record_differ_and_their_redelivery_does_not(handle: RunHandle, posted: list[Any]) -> None:
    for _ in range(2):
        handle.handling = tuple(["on_eval", 7])  # made anew for each record, as a lane does
        handle.request_lr(0.5)
        handle.request_lr(0.5)
    assert [data["id"] for _, data in posted] == ["probe/7/1", "probe/7/2"] * 2


@pytest.mark.parametrize("factor", [0, -1.0, float("inf"), float("nan"), "0.5", True, None], ids=repr)
def test_a_factor_that_makes_no_sense_is_refused(factor: Any) -> None:
    with pytest.raises(ValueError, match="factor must be a positive number"):
        lr_data(factor, None)


def test_the_first_reason_to_stop_counts() -> None:
    requests = Requests()
    requests.put("stop", {"reason": "a"})
    requests.put("stop", {"reason": "b"})
    assert requests.stop_reason == "a"


def test_a_request_is_taken_once() -> None:
    requests = Requests()
    requests.put("lr", lr_data(0.5, None) | {"id": "x/1/1"})
    requests.put("lr", lr_data(0.5, None) | {"id": "x/1/1"})
    requests.put("lr", lr_data(0.5, None) | {"id": "x/1/2"})
    assert len(requests.take_lr()) == 2
    requests.put("lr", lr_data(0.5, None) | {"id": "x/1/2"})
    assert requests.take_lr() == []


def test_requests_that_nobody_takes_are_bounded_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    requests = Requests()
    for number in range(3 * WAITING):
        requests.put("lr", lr_data(0.5, None) | {"id": f"x/{number}/1"})
    assert caplog.text.count("further ones are refused") == 1
    assert [each["id"] for each in requests.take_lr()] == [f"x/{number}/1" for number in range(WAITING)]
    requests.put("lr", lr_data(0.5, None) | {"id": "x/later/1"})
    assert len(requests.take_lr()) == 1


def test_requests_at_every_step_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslog.control.SEEN", 100)
    requests = Requests()
    for number in range(1000):
        requests.put("lr", lr_data(0.5, None) | {"id": f"x/{number}/1"})
        assert len(requests.take_lr()) == 1
    requests.put("lr", lr_data(0.5, None) | {"id": "x/0/1"})  # so long ago that it is forgotten
    assert len(requests.take_lr()) == 1
    for number in range(901, 1000):  # redelivered
        requests.put("lr", lr_data(0.5, None) | {"id": f"x/{number}/1"})
    assert requests.take_lr() == []


def optimizer(**options: Any) -> Any:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    return torch.optim.SGD(
        [{"params": parameters[:1], "name": "backbone", "lr": 0.1}, {"params": parameters[1:], "lr": 1.0}], **options
    )


SCHEDULERS = {
    "step": lambda each: torch.optim.lr_scheduler.StepLR(each, 3, 0.5),
    "cosine": lambda each: torch.optim.lr_scheduler.CosineAnnealingLR(each, 30),
    "onecycle": lambda each: torch.optim.lr_scheduler.OneCycleLR(each, [0.1, 1.0], total_steps=30),
    "lambda": lambda each: torch.optim.lr_scheduler.LambdaLR(each, lambda step: 0.9**step),
    "sequential": lambda each: torch.optim.lr_scheduler.SequentialLR(
        each,
        [
            torch.optim.lr_scheduler.LinearLR(each, 0.1, total_iters=5),
            torch.optim.lr_scheduler.StepLR(each, 4, 0.5),
        ],
        [5],
    ),
}


def rates(scheduler: Any, asked_at: int | None, resumed_at: int | None = None) -> list[list[float]]:
    each = optimizer()
    schedule = SCHEDULERS[scheduler](each)
    found = []
    for step in range(20):
        if step == asked_at:
            scale_lr(each, schedule, 0.5, None)
        if step == resumed_at:
            states = each.state_dict(), schedule.state_dict()
            each = optimizer()
            schedule = SCHEDULERS[scheduler](each)
            each.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        each.step()
        schedule.step()
        found.append([group["lr"] for group in each.param_groups])
    return found


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("resumed_at", [None, 11])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_ratio_holds_for_the_rest_of_the_schedule(scheduler: str, resumed_at: int | None) -> None:
    plain, scaled = rates(scheduler, None), rates(scheduler, 8, resumed_at)
    ratios = [b / a for before, after in zip(plain, scaled, strict=True) for a, b in zip(before, after, strict=True)]
    assert ratios == pytest.approx([1.0] * 16 + [0.5] * 24)


def test_one_group_by_its_name() -> None:
    each = optimizer()
    assert scale_lr(each, None, 0.5, "backbone") == ["backbone"]
    assert [group["lr"] for group in each.param_groups] == [0.05, 1.0]


def test_one_group_by_its_index() -> None:
    each = optimizer()
    assert scale_lr(each, None, 0.5, "1") == ["1"]
    assert [group["lr"] for group in each.param_groups] == [0.1, 0.5]


def test_a_group_that_does_not_exist_changes_nothing() -> None:
    each = optimizer()
    assert scale_lr(each, None, 0.5, "head") == []
    assert [group["lr"] for group in each.param_groups] == [0.1, 1.0]


def test_a_rate_that_is_a_tensor_is_changed_in_place() -> None:
    rate = torch.tensor(0.5)
    each = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scale_lr(each, None, 0.5, None)
    assert float(each.param_groups[0]["lr"]) == 0.25
