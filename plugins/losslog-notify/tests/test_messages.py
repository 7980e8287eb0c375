"""What a message says, and what it cannot do."""

from __future__ import annotations

import re

import pytest
from losslog_notify.facts import alert_text, duration, epoch_text, epoch_title
from losslog_notify.messages import BODY, LISTED, TITLE, Message, harmless, letter

EVIL = "\x1b]0;owned\x07\x1b[31m\x9b1m"
# How services find mentions in a text.
DISCORD = re.compile(r"\s*(?:<?@(?P<role>&?)(?P<id>[0-9]+)>?|@(?P<value>[a-z0-9]+))", re.I)
SLACK = (
    re.compile(r"(?:<|&lt;)?[ \t]*!(?P<channel>[^| \n]+)(?:>|&gt;)"),
    re.compile(r"(?:<|&lt;)?[ \t]*@(?P<user>[^| \n]+)(?:>|&gt;)"),
)


def message(seq: int = 0, level: str = "warning", title: str = "a loss has stalled", text: str = "") -> Message:
    return Message(seq, level, title, text)


def test_one_thing_to_tell() -> None:
    told = alert_text("Lower the rate.", 7, 14000, "loss_mask", "lr_cut", "it has stalled")
    found = letter("maskrcnn", [message(title="it has stalled", text=told)], "20260101-000000-cafe on box7")
    assert found.title == "maskrcnn: it has stalled"
    assert found.body == (
        "Lower the rate.\nloss_mask, epoch 7, step 14,000, cause: lr_cut\n20260101-000000-cafe on box7"
    )
    assert found.level == "warning"


def test_several_are_listed_and_the_gravest_decides() -> None:
    many = [message(0, "info", "one"), message(1, "error", "two", "details"), message(2, "warning", "three")]
    found = letter("maskrcnn", many, "id")
    assert (found.title, found.level) == ("maskrcnn: 3 messages", "error")
    assert found.body == "info: one\nerror: two: details\nwarning: three\nid"


def test_the_end_is_the_title_of_what_came_with_it() -> None:
    end = Message(1, "error", "crashed after 1:02", "its process was killed", ends=True)
    found = letter("maskrcnn", [message(), end], "id")
    assert found.title == "maskrcnn: crashed after 1:02 (2 messages)"
    assert "its process was killed" in found.body


def test_what_there_is_no_room_for_is_counted_and_the_gravest_stay() -> None:
    many = [message(seq, "error" if seq == 3 else "warning", f"n{seq} " + "x" * 300) for seq in range(40)]
    body = letter("maskrcnn", many, "id").body
    assert len(body) < BODY + 2 * LISTED
    assert "error: n3 " in body
    shown = body.count(": n")
    assert f"and {40 - shown} more" in body
    assert 0 < shown < 40


CROWDS = ["@everyone", "@here", "<!channel>", "< !here>", "<@U123>", "<@&77>", "@all", "&lt;!channel&gt;", "@room",
          "@**all**", "<!subteam^S1|x>", "!@everyone", "@@everyone"]  # fmt: skip


@pytest.mark.parametrize("crowd", CROWDS)
def test_nobody_is_mentioned(crowd: str) -> None:
    found = letter(f"run {crowd}", [message(title=f"t {crowd}", text=f"text\n{crowd} now")], f"id {crowd}")
    both = letter(crowd, [message(0, title=crowd, text=crowd), message(1, title=crowd)], crowd)
    for text in (found.title, found.body, both.title, both.body):
        assert not [each for each in DISCORD.finditer(text) if each["id"] or each["value"]], text
        assert not [each for pattern in SLACK for each in pattern.finditer(text)], text
        assert "@everyone" not in text


def test_nothing_steers_a_terminal() -> None:
    found = letter(EVIL, [message(title=EVIL, text=EVIL), message(1, text=EVIL)], EVIL)
    assert [char for char in found.title + found.body if not char.isprintable() and char != "\n"] == []


def test_secrets_are_left_out_and_lengths_are_bounded() -> None:
    said = harmless("failed: api_key=hunter2 at https://me:hunter2@host/", 500)
    assert "hunter2" not in said
    found = letter("n" * 500, [message(title="t" * 5000, text="x" * 50000)], "id" * 500)
    assert len(found.title) <= TITLE
    assert len(found.body) <= BODY + LISTED + 1
    assert found.title.startswith("n" * 30)
    assert ": ttt" in found.title


def test_the_summary_of_an_epoch() -> None:
    losses = {f"loss_{name}": float(number) for number, name in enumerate("abcdefg")}
    assert epoch_title(3, 26, 1.5) == "epoch 3/26: total 1.5000"
    assert epoch_title(3, None, None) == "epoch 3"
    text = epoch_text(losses, {"a": 0.5, "b": 0.25}, {"segm AP": 0.31})
    assert text.splitlines() == [
        "loss_g 6.0000, loss_f 5.0000, loss_e 4.0000, loss_d 3.0000, loss_c 2.0000 and 2 more",
        "validation loss 0.7500", "segm AP 0.3100",
    ]  # fmt: skip
    assert epoch_text(None, None, {}) == ""
    assert epoch_text(0.5, 0.25, {}) == "validation loss 0.2500"
    assert (duration(133.2), duration(3733), duration(-1)) == ("2:13", "1:02:13", "0:00")
