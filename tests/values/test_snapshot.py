"""Snapshots: values as they are at the call, no graph kept, no synchronisation."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from losslog.values.snapshot import Later, Staged, learning_rate, resolve, snapshot

torch = pytest.importorskip("torch")


def now(losses: Any, total: Any = None) -> tuple[Any, list[float]]:
    keys, values = snapshot(losses, total)
    return keys, resolve(values)


def test_a_dict() -> None:
    assert now({"a": torch.tensor(1.5), "b": 2, "c": np.float32(0.5)}) == (("a", "b", "c"), [1.5, 2.0, 0.5])


@pytest.mark.parametrize("value", [0.5, torch.tensor(0.5), np.float64(0.5)], ids=type)
def test_a_scalar_has_no_keys(value: Any) -> None:
    assert now(value) == (None, [0.5])


def test_a_total_comes_last() -> None:
    assert now({"a": 1.0}, torch.tensor(9.0)) == (("a",), [1.0, 9.0])


def test_what_is_changed_later_does_not_change_the_snapshot() -> None:
    loss = torch.tensor(4.0)
    for _ in range(2):  # the first call with these names takes another way than the next ones
        _, values = snapshot({"a": loss})
        loss.div_(2)
    assert resolve(values) == [2.0]


@pytest.mark.parametrize("times", [1, 2])
def test_no_graph_is_kept(times: int) -> None:
    class Kept:
        """Lives as long as the graph that holds it."""

    class Keeping(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value, kept):
            ctx.kept = kept
            return value * 2

        @staticmethod
        def backward(ctx, grad):
            return grad, None

    kept = Kept()
    graph = weakref.ref(kept)
    loss = Keeping.apply(torch.ones((), requires_grad=True), kept)
    for _ in range(times):
        found = snapshot({"a": loss, "b": loss * 2})
    del loss, kept
    gc.collect()
    assert graph() is None
    assert found[0] == ("a", "b")


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(2), torch.tensor(1j), torch.tensor(True), torch.zeros(2).to_sparse(), torch.zeros((), device="meta"),
     None, "x", {"a": 1.0}, float],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
@pytest.mark.parametrize("seen", [False, True])
def test_what_may_not_be_a_loss_is_refused_whether_or_not_the_names_are_known(bad: Any, seen: bool) -> None:
    if seen:
        snapshot({"good": torch.tensor(1.0), "bad": torch.tensor(1.0)})
    with pytest.raises(TypeError, match=r"losses\['bad'\]"):
        snapshot({"good": torch.tensor(1.0), "bad": bad})


def test_a_total_that_may_not_be_one_is_named() -> None:
    with pytest.raises(TypeError, match="total is a str"):
        snapshot({"a": 1.0}, "9")


def test_other_mappings_are_dicts() -> None:
    from collections import OrderedDict
    from types import MappingProxyType

    assert now(OrderedDict(a=1.0)) == now(MappingProxyType({"a": 1.0})) == (("a",), [1.0])


class Device:
    """Stands where a GPU would: a tensor whose values are on their way."""

    def __init__(self, *numbers: float) -> None:
        self.numbers, self.waited = list(numbers), 0

    def synchronize(self) -> None:
        self.waited += 1

    def tolist(self) -> list[float]:
        return self.numbers


def test_staged_values_are_waited_for_once() -> None:
    device = Device(1.0, 2.0)
    staged = Staged([None, 5.0, None], [([0, 2], device, device)])
    assert staged.resolve() == staged.resolve() == [1.0, 5.0, 2.0]
    assert device.waited == 1


def test_values_for_later() -> None:
    assert Later(("a", "b"), [1.0, 2.0]).now() == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize(
    ("lr", "expected"),
    [(None, None), (0.1, 0.1), (torch.tensor(0.5), 0.5), ({"a": 1, "b": torch.tensor(2.0)}, {"a": 1.0, "b": 2.0}),
     ([0.1, 0.2], {"0": 0.1, "1": 0.2})],
)  # fmt: skip
def test_learning_rates(lr: Any, expected: Any) -> None:
    assert learning_rate(lr) == expected


@pytest.mark.parametrize(("lr", "name"), [("0.1", "lr is a str"), ({"a": None}, r"lr\['a'\]"), ([None], r"lr\[0\]")])
def test_a_learning_rate_that_is_no_number_is_named(lr: Any, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        learning_rate(lr)


def test_a_learning_rate_that_aliases_is_copied() -> None:
    rate = torch.tensor(0.5)
    found = learning_rate(rate)
    rate.mul_(0.1)
    assert found == 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_values_on_a_gpu_are_those_of_the_call_and_cost_no_synchronisation() -> None:
    loss = torch.tensor(4.0, device="cuda", requires_grad=True) * 1
    torch.cuda.set_sync_debug_mode("error")
    try:
        keys, values = snapshot({"a": loss, "b": loss * 2})
        with torch.no_grad():
            loss.zero_()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (keys, resolve(values)) == (("a", "b"), [4.0, 8.0])
