"""The schema: its names are binding, and its documentation is part of it."""

from __future__ import annotations

import inspect

import pytest

from losslog import hookspecs

HEADINGS = ["Called when:", "Arguments:", "Thread:", "May raise:"]
CONTEXT = ("run", "seq", "time")
HOOKS = {
    "on_run_start", "on_scalars", "on_batch_losses", "on_eval", "on_images", "on_metrics", "on_epoch_end",
    "on_checkpoint", "on_alert", "on_resume", "on_run_end", "on_flush",
}  # fmt: skip


def test_the_hooks_are_these() -> None:
    assert set(hookspecs.HOOKS) == HOOKS


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_every_hook_is_documented_under_the_same_headings(hook: str) -> None:
    text = inspect.getdoc(getattr(hookspecs, hook)) or ""
    needed = HEADINGS[: 1 if hook == "on_flush" else 2]  # what the others would say stands in the module's docstring
    places = [text.find(heading) for heading in HEADINGS if heading in needed or heading in text]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("hook", sorted(HOOKS - {"on_flush"}))
def test_every_argument_is_explained(hook: str) -> None:
    text = inspect.getdoc(getattr(hookspecs, hook)) or ""
    arguments = [name for name in hookspecs.ARGUMENTS[hook] if name not in CONTEXT]
    assert [name for name in arguments if f"\n    {name}: " not in text] == []


@pytest.mark.parametrize("hook", sorted(HOOKS - {"on_flush"}))
def test_every_hook_offers_its_context(hook: str) -> None:
    assert set(CONTEXT) <= set(hookspecs.ARGUMENTS[hook])
