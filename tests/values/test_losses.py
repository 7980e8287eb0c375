"""What a loop may hand over as its losses, and what it is told when it may not."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from losslog.values.losses import as_float, check_names, normalise

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    "value",
    [0.5, Decimal("0.5"), Fraction(1, 2), np.float64(0.5), np.float16(0.5), np.array(0.5), np.array([0.5]),
     torch.tensor(0.5), torch.tensor([0.5]), torch.tensor(0.5, dtype=torch.bfloat16),
     torch.tensor(0.5, requires_grad=True), torch.nn.Parameter(torch.tensor(0.5))],
    ids=lambda each: f"{type(each).__name__}-{getattr(each, 'dtype', '')}",
)  # fmt: skip
def test_what_is_a_number(value: Any) -> None:
    found = as_float(value, "x")
    assert (found, type(found)) == (0.5, float)


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3)], ids=lambda each: type(each).__name__)
def test_whole_numbers_are_numbers(value: Any) -> None:
    assert as_float(value, "x") == 3.0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "None: leave the key out"),
        ("0.5", "a str"),
        (b"0.5", "a bytes"),
        (True, "a bool"),
        (np.bool_(True), "a bool"),
        (torch.tensor(True), "a Tensor of shape.*dtype torch.bool"),
        ({"a": 1.0}, "a nested dict.*flatten"),
        ([0.5], "a list"),
        ((0.5,), "a tuple"),
        ({0.5}, "a set"),
        (1j, "a complex"),
        (np.complex64(1j), "a complex64"),
        (torch.tensor(1j), "a Tensor of.*complex64"),
        (torch.zeros(2, 3), r"a Tensor of shape \(2, 3\).*\.mean\(\)"),
        (np.zeros(3), r"a ndarray of shape \(3,\)"),
        (torch.zeros(0), r"a Tensor of shape \(0,\)"),
        (object(), "a object"),
        (lambda: 0.5, "a function"),
    ],
    ids=lambda each: type(each).__name__ if not isinstance(each, str) else "",
)
def test_what_is_not_is_named_with_its_key_and_type(value: Any, said: str) -> None:
    with pytest.raises(TypeError, match=r"losses\['rpn'\] is " + said):
        normalise({"rpn": value})


def test_a_number_too_large_for_a_float_is_named() -> None:
    with pytest.raises(ValueError, match=r"losses\['a'\].*too large"):
        normalise({"a": 10**400})


def test_an_empty_dict_is_refused() -> None:
    with pytest.raises(ValueError, match="empty dict"):
        check_names({})


def test_a_key_that_is_not_a_string_is_named() -> None:
    with pytest.raises(TypeError, match="keys must be strings, got 3 of type int"):
        check_names({"a": 1, 3: 1})


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ValueError, match="empty name"):
        check_names({" ": 1})


def test_a_dict_stays_a_dict_in_its_order() -> None:
    assert list(normalise({"b": 1, "a": 2}).items()) == [("b", 1.0), ("a", 2.0)]


def test_a_scalar_stays_a_scalar() -> None:
    assert normalise(torch.tensor(2)) == 2.0
