"""Calling one plugin's hooks."""

from __future__ import annotations

from losslog.delivery.caller import fresh


def test_a_copy_shares_nothing() -> None:
    data = {"losses": {"a": 1.0}, "list": [{"b": [1]}]}
    copy = fresh(data)
    copy["losses"]["a"] = 2.0
    copy["list"][0]["b"].append(2)
    assert data == {"losses": {"a": 1.0}, "list": [{"b": [1]}]}
