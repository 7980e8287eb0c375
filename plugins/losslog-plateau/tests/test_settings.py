from __future__ import annotations

import pytest
from losslog_plateau.settings import Settings, typical_ranges


@pytest.mark.parametrize(
    ("name", "value"), [("z", 0.1), ("z", 9), ("r", 0), ("r", 1), ("window", 0), ("window", 21), ("confirm", 0)]
)
def test_value_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name}={value!r}: give"):
        Settings(**{name: value})


def test_empty_table_knows_none() -> None:
    assert typical_ranges({}) == {}


@pytest.mark.parametrize("pair", [0.2, [0.1], ["a", "b"], [0.3, 0.2], [-1, 1], [0, 0]])
def test_bad_range_is_refused_by_name(pair: object) -> None:
    with pytest.raises(ValueError, match=r"typical\['loss_x'\]=.*: give"):
        typical_ranges({"loss_x": pair})


def test_table_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^typical=\[\]: give a table"):
        typical_ranges([])  # type: ignore[arg-type]
