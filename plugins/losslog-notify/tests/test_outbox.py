"""Against a service that takes, refuses, hangs or is away: what it gets, how often, and what is said."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from losslog_notify import NotifyPlugin
from losslog_notify.limit import Limit

import losslog
from losslog.testing import tell

ORDINARY: dict[str, Any] = {"text": "Lower the rate.", "source": "plateau", "component": None, "key": "k"}


def plugin(run: Any, *services: Any, **options: Any) -> NotifyPlugin:
    made = NotifyPlugin([each.url for each in services], **options)
    tell(made, "on_run_start", name="maskrcnn", run=run, seq=0, time=time.time())
    return made


def alert(made: NotifyPlugin, seq: int, title: str = "", age: float = 0.0, level: str = "warning") -> None:
    title = title or f"alert-{seq}."
    tell(made, "on_alert", level=level, title=title, step=seq, epoch=1, seq=seq, time=time.time() - age, **ORDINARY)


def end(made: NotifyPlugin, run: Any, seq: int, status: str = "finished") -> None:
    tell(made, "on_run_end", status=status, error=None, run=run, seq=seq, time=time.time())


def counts(endpoint: Any, *seqs: int) -> list[int]:
    return [endpoint.text.count(f"alert-{seq}.") for seq in seqs]


def test_what_comes_between_two_flushes_is_one_message(run: Any, endpoint: Any) -> None:
    made = plugin(run, endpoint)
    for seq in (1, 2, 3):
        alert(made, seq)
    assert made.on_flush() is None
    assert [each["title"] for each in endpoint.taken] == ["maskrcnn: 3 messages"]
    assert endpoint.taken[0]["type"] == "warning"
    assert counts(endpoint, 1, 2, 3) == [1, 1, 1]
    assert made.on_flush() is None
    assert len(endpoint.taken) == 1


@pytest.mark.parametrize(("least", "sent"), [("info", 3), ("warning", 2), ("error", 1), (None, 0)])
def test_only_what_is_grave_enough(run: Any, endpoint: Any, least: str | None, sent: int) -> None:
    made = plugin(run, endpoint, alerts=least)
    for seq, level in enumerate(("info", "warning", "error")):
        alert(made, seq, level=level)
    made.on_flush()
    assert sum(counts(endpoint, 0, 1, 2)) == sent


def test_beyond_a_burst_messages_are_held_back_and_go_as_one_with_a_count(run: Any, endpoint: Any) -> None:
    made = plugin(run, endpoint, burst=2, every=3600.0)
    for seq in range(1, 7):
        alert(made, seq)
        assert made.on_flush() == (None if seq <= 2 else 2)  # the cursor stands before the first that is held
    assert len(endpoint.taken) == 2
    end(made, run, 7)
    assert made.on_flush() is None
    assert len(endpoint.taken) == 3
    assert endpoint.taken[-1]["title"] == "maskrcnn: finished (5 messages)"
    assert counts(endpoint, *range(1, 7)) == [1] * 6


def test_the_limit_counts_from_what_went_out() -> None:
    limit = Limit(2, 60.0)
    for now, free in ((0.0, True), (1.0, True), (2.0, False), (59.0, False), (61.0, True), (62.0, False)):
        assert limit.allows(now) is free, now
        if free:
            limit.spend()
    assert limit.allows(10_000.0)
    limit.spend()
    limit.spend()
    assert not limit.allows(10_001.0)
    unlimited = Limit(1, 0.0)
    for now in (0.0, 0.0, 0.0):
        assert unlimited.allows(now)
        unlimited.spend()


@pytest.mark.parametrize("how", ["closed", 500, 503, 429, 408, "hanging"])
def test_away_and_back_once_each(run: Any, endpoint: Any, how: Any) -> None:
    made = plugin(run, endpoint)
    if how == "closed":
        endpoint.close()
    else:
        endpoint.status = 0 if how == "hanging" else how
    alert(made, 1)
    with pytest.raises(losslog.BackendUnavailable, match=r"^json \(address 1\) ") as caught:
        made.on_flush()
    assert str(how) in str(caught.value) or how in ("closed", "hanging")
    alert(made, 1)  # as the lane hands it over again
    alert(made, 2)
    with pytest.raises(losslog.BackendUnavailable):
        made.on_flush()
    if how == "closed":
        endpoint.open()
    endpoint.status = 200
    for seq in (1, 2, 3):
        alert(made, seq)
    assert made.on_flush() is None
    assert counts(endpoint, 1, 2, 3) == [1, 1, 1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_for_good_is_no_outage_and_what_can_be_sent_is(run: Any, endpoint: Any, status: int) -> None:
    made = plugin(run, endpoint, burst=1, every=3600.0)
    endpoint.status = status
    for seq in (1, 2):
        alert(made, seq)
    with pytest.raises(losslog.LosslogError, match=str(status)) as caught:
        made.on_flush()
    assert not isinstance(caught.value, losslog.BackendUnavailable)
    asked = endpoint.asked
    for seq in (1, 2):  # record by record, as a lane does then: not held back
        alert(made, seq)
        with pytest.raises(losslog.LosslogError, match=str(status)):
            made.on_flush()
    assert endpoint.asked == asked + 2
    endpoint.status = 200
    alert(made, 3)
    assert made.on_flush() is None
    assert counts(endpoint, 1, 2, 3) == [0, 0, 1]


def test_one_service_away_holds_up_no_other_and_gets_all_of_it_later(run: Any, endpoint: Any, other: Any) -> None:
    made = plugin(run, endpoint, other)
    other.close()
    for seq in (1, 2, 3):
        alert(made, seq)
        assert made.on_flush() == 0  # nothing is durable before both have it
    assert counts(endpoint, 1, 2, 3) == [1, 1, 1]
    end(made, run, 4)
    with pytest.raises(losslog.BackendUnavailable, match="address 2"):  # the run is over: the lane waits
        made.on_flush()
    other.open()
    for seq in (1, 2, 3):
        alert(made, seq)
    end(made, run, 4)
    assert made.on_flush() is None
    for service in (endpoint, other):
        assert counts(service, 1, 2, 3) == [1, 1, 1]
        assert service.text.count("finished") == 1


def test_one_that_is_away_is_asked_seldom_while_others_work(run: Any, endpoint: Any, other: Any) -> None:
    made = plugin(run, endpoint, other, burst=100)
    other.status = 503
    for seq in range(1, 30):
        alert(made, seq)
        made.on_flush()
    assert other.asked < 10
    assert counts(endpoint, *range(1, 30)) == [1] * 29


def test_one_service_that_refuses_is_said_once_and_the_other_has_everything(
    run: Any, endpoint: Any, other: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made = plugin(run, endpoint, other)
    other.status = 404
    for seq in (1, 2, 3):
        alert(made, seq)
        assert made.on_flush() is None
    assert counts(endpoint, 1, 2, 3) == [1, 1, 1]
    assert caplog.text.count("json (address 2) answers 404") == 1


def test_refused_by_one_while_the_other_is_away_is_lost_only_when_both_refuse(
    run: Any, endpoint: Any, other: Any
) -> None:
    made = plugin(run, endpoint, other)
    endpoint.status, other.status = 404, 503
    alert(made, 1)
    with pytest.raises(losslog.BackendUnavailable, match="address 2"):
        made.on_flush()
    other.status = 200
    alert(made, 1)
    assert made.on_flush() is None
    assert counts(other, 1) == [1]
    other.status = 404
    alert(made, 2)
    with pytest.raises(losslog.LosslogError, match=r"address 1\) answers 404; json \(address 2\) answers 404"):
        made.on_flush()


def test_what_is_old_is_left_out_and_counted(run: Any, endpoint: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "losslog")
    made = plugin(run, endpoint)
    for seq in (1, 2, 3):
        alert(made, seq, age=90_000.0)
    alert(made, 4, age=80_000.0)
    assert made.on_flush() is None
    assert counts(endpoint, 1, 2, 3, 4) == [0, 0, 0, 1]
    assert "3 messages are older than max_age=86400 s" in caplog.text
    asked = plugin(run, endpoint, max_age=None)
    alert(asked, 5, age=1e8)
    asked.on_flush()
    assert counts(endpoint, 5) == [1]


def test_what_was_young_is_sent_however_long_a_service_is_away(run: Any, endpoint: Any) -> None:
    made = plugin(run, endpoint, max_age=3600.0)
    endpoint.status = 503
    alert(made, 1)
    with pytest.raises(losslog.BackendUnavailable):
        made.on_flush()
    endpoint.status = 200
    alert(made, 1, age=7200.0)  # it has become old meanwhile
    made.on_flush()
    assert counts(endpoint, 1) == [1]


def test_no_address_is_logged_or_printed_whatever_happens(
    run: Any, endpoint: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("apprise", "urllib3.connectionpool"):
        caplog.set_level(logging.DEBUG, name)
    made = plugin(run, endpoint)
    seen = []
    for status in (200, 503, 404):
        endpoint.status = status
        alert(made, status)
        try:
            made.on_flush()
        except losslog.LosslogError as error:
            seen += [repr(error), repr(error.__cause__), repr(error.__context__)]
    endpoint.close()
    alert(made, 600)
    with pytest.raises(losslog.BackendUnavailable) as caught:
        made.on_flush()
    seen += [repr(caught.value), repr(caught.value.__context__)]
    printed = "".join(capfd.readouterr()) + caplog.text + "".join(seen)
    assert "s3cret" not in printed + repr(made)
    assert len(endpoint.taken) == 1
    logging.getLogger("apprise").warning("another's line")
    assert "another's line" in caplog.text


def test_epochs_are_summed_up_where_that_is_wanted(run: Any, endpoint: Any) -> None:
    made = plugin(run, endpoint, epochs=2)
    for epoch in (1, 2, 3, 4):
        metrics = {"bbox": {"AP": 0.1 * epoch}, "segm": {"AP": 0.2}}
        tell(made, "on_eval", epoch=epoch, step=9, split="val", metrics=metrics, seq=2 * epoch, time=time.time())
        tell(made, "on_epoch_end", epoch=epoch, epochs=4, losses={"loss_mask": 0.5, "loss_box": 0.25}, total=0.75,
             val_loss=None, lr=0.1, seq=2 * epoch + 1, time=time.time())  # fmt: skip
        made.on_flush()
    assert [each["title"] for each in endpoint.taken] == [
        f"maskrcnn: epoch {epoch}/4: total 0.7500" for epoch in (2, 4)
    ]
    assert "bbox AP 0.4000, segm AP 0.2000" in endpoint.taken[1]["body"]
    assert "loss_mask 0.5000, loss_box 0.2500" in endpoint.taken[1]["body"]
