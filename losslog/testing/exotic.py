"""Stories with other kinds of values: tensors that carry a graph, numpy scalars in dicts that are watched.

Test thread. Contract:

- The numbers are those of the story as it was; only their types differ.
"""

from __future__ import annotations

import gc
import importlib
import weakref
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Final

from losslog.journal.records import Record
from losslog.testing.story import Story

NUMBERS: Final = ("losses", "total", "val_loss", "lr")


class Watched(dict[str, Any]):
    """A dict that notes who changes it.

    Args:
        content: what is in it.
        where: the record's hook and argument.
        changes: takes the notes.
    """

    def __init__(self, content: Mapping[str, Any], where: str, changes: list[str]) -> None:
        super().__init__(content)
        self._where, self._changes = where, changes

    def _note(self, method: str) -> None:
        self._changes.append(f"{self._where}.{method}")

    def __setitem__(self, key: str, value: Any) -> None:
        self._note("__setitem__")
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._note("__delitem__")
        super().__delitem__(key)

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc] # noted, then what dict does
        self._note("__ior__")
        return super().__ior__(other)

    def pop(self, *arguments: Any) -> Any:
        """Note it, and pop."""
        self._note("pop")
        return super().pop(*arguments)

    def popitem(self) -> tuple[str, Any]:
        """Note it, and pop."""
        self._note("popitem")
        return super().popitem()

    def clear(self) -> None:
        """Note it, and clear."""
        self._note("clear")
        super().clear()

    def update(self, *arguments: Any, **items: Any) -> None:
        """Note it, and update."""
        self._note("update")
        super().update(*arguments, **items)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Note it where it changes something."""
        if key not in self:
            self._note("setdefault")
        return super().setdefault(key, default)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    return change(value) if isinstance(value, float) else value


def _told(story: Story, change: Callable[[Record], Mapping[str, Any]]) -> Story:
    told = Story()
    told.chapters, told.expected = story.chapters, story.expected
    told.records = [record._replace(data=dict(change(record))) for record in story.records]
    return told


def tensors(story: Story, torch: Any) -> tuple[Story, Callable[[], int]]:
    """The story with 0-d tensors; all but learning rates require a gradient.

    Returns:
        The story, and a function that counts the tensors still alive after it was forgotten.
    """
    references: list[Any] = []

    def tensor(value: float) -> Any:
        leaf = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        references.append(weakref.ref(leaf))
        return leaf * 1.0  # has a graph that keeps the leaf

    def change(record: Record) -> Mapping[str, Any]:
        kinds = dict.fromkeys(NUMBERS, tensor) | {"lr": lambda value: torch.tensor(value, dtype=torch.float64)}
        return {key: _mapped(value, kinds[key]) if key in kinds else value for key, value in record.data.items()}

    def alive() -> int:
        if all(reference() is None for reference in references):
            return 0
        gc.collect()  # what is only kept by cycles is not kept
        return sum(reference() is not None for reference in references)

    return _told(story, change), alive


def watched(story: Story) -> tuple[Story, list[str]]:
    """The story with numpy scalars (where there is numpy) in watched dicts.

    Returns:
        The story, and the list that fills with what was changed.
    """
    changes: list[str] = []
    number: Any = importlib.import_module("numpy").float32 if find_spec("numpy") else float

    def change(record: Record) -> Mapping[str, Any]:
        return {
            key: watch(_mapped(value, number) if key in NUMBERS else value, f"{record.hook}({key})")
            for key, value in record.data.items()
        }

    def watch(value: Any, where: str) -> Any:
        if isinstance(value, Mapping):
            return Watched({key: watch(item, where) for key, item in value.items()}, where, changes)
        return value

    return _told(story, change), changes
