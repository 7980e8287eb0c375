"""Options and addresses: what is taken, what is refused, and that no address is shown."""

from __future__ import annotations

from typing import Any

import pytest
from losslog_notify import NotifyPlugin
from losslog_notify.addresses import addresses, made

import losslog
from losslog.delivery.discovery import select
from losslog.testing import tell

URL = "json://127.0.0.1:9/s3cret"


def state(**options: Any) -> Any:
    (found,) = [each for each in select("auto", {"notify": options} if options else None) if each.name == "notify"]
    return found


def test_off_until_told_where(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (state().state, state().reason) == ("off", "set LOSSLOG_NOTIFY, or name it in plugins=")
    found = state(epochs=True)
    assert found.state == "not ready"
    assert "set LOSSLOG_NOTIFY" in found.reason
    monkeypatch.setenv("LOSSLOG_NOTIFY", URL)
    assert state().state == "ready"
    assert not state().near
    assert state(urls=URL).state == "ready"
    for off in ("", "off", "0", " "):
        monkeypatch.setenv("LOSSLOG_NOTIFY", off)
        assert state().state == ("off" if not off else "not ready")
        with pytest.raises(losslog.NotReady, match="LOSSLOG_NOTIFY"):
            NotifyPlugin()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("json://a/x json://b", ["json://a/x", "json://b"]),
        ("json://a/x, slack://T/B/C;\n xml://b", ["json://a/x", "slack://T/B/C", "xml://b"]),
        ("tgram://token/1,2", ["tgram://token/1,2"]),  # a comma within an address
        (["json://a json://b", "json://a"], ["json://a", "json://b"]),
        (" json://a\n", ["json://a"]),
    ],
)
def test_addresses_are_told_apart(given: Any, found: list[str]) -> None:
    assert addresses(given) == found


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"urls": 3}, TypeError),
        ({"urls": [3]}, TypeError),
        ({"urls": "hunter2"}, ValueError),
        ({"urls": ["json://a", "hunter2"]}, ValueError),
        ({"urls": "[redacted]"}, ValueError),
        ({"urls": []}, losslog.NotReady),
        ({"alerts": "loud"}, ValueError),
        ({"alerts": True}, ValueError),
        ({"end": "yes"}, TypeError),
        ({"epochs": -1}, TypeError),
        ({"epochs": "5"}, TypeError),
        ({"burst": 0}, ValueError),
        ({"burst": True}, ValueError),
        ({"every": -1.0}, ValueError),
        ({"every": None}, ValueError),
        ({"max_age": float("nan")}, ValueError),
        ({"max_age": "1 day"}, ValueError),
    ],
)
def test_a_wrong_option_is_refused_by_its_name_and_shows_no_address(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        NotifyPlugin(**{"urls": URL, **options})
    (name,) = options
    assert name in str(caught.value) or "address" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_address_that_apprise_does_not_know_is_said_at_the_start(
    run: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(ValueError, match=r"slakc \(address 1\)") as caught:
        tell(NotifyPlugin("slakc://s3cret/token"), "on_run_start", name="n", run=run)
    tell(NotifyPlugin(["slakc://s3cret/token", URL]), "on_run_start", name="n", run=run)
    assert [each.name for each in made([URL, "slakc://s3cret/b"])] == ["json (address 1)"]
    assert "slakc (address 1)" in caplog.text
    printed = "".join(capfd.readouterr())
    assert "s3cret" not in str(caught.value) + caplog.text + printed
