"""How far a batch travels: the files it passes on each thread, from `Run.log_batch` to a plugin's hook."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import losslog
from losslog import hookimpl

PACKAGE = Path(losslog.__file__).parent
DESIGN = PACKAGE.parent / "docs" / "design.md"


class Walk:
    """Every call into losslog, by thread, in order."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[str, str]]] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code: CodeType = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)):
            name = Path(code.co_filename).relative_to(PACKAGE).as_posix()
            self.calls.setdefault(threading.current_thread().name, []).append((name, code.co_name))

    def files(self, thread: str, first: tuple[str, str], last: tuple[str, str]) -> list[str]:
        """The files passed on a thread between the last call of ``first`` before ``last``, and that."""
        calls = self.calls[thread]
        end = len(calls) - calls[::-1].index(last)
        begin = end - 1 - calls[:end][::-1].index(first)
        return list(dict.fromkeys(file for file, _ in calls[begin:end]))


@pytest.fixture
def walk() -> Iterator[Walk]:
    found = Walk()
    threading.setprofile(found)  # of threads that start from here on
    yield found
    sys.setprofile(None)
    threading.setprofile(None)  # type: ignore[arg-type]


def test_a_batch_passes_few_files_and_design_md_names_them(
    walk: Walk, tmp_path: Path, until: Callable[..., Any]
) -> None:
    class Plugin:
        def __init__(self) -> None:
            self.steps: list[int] = []

        @hookimpl
        def on_batch_losses(self, step: int, losses: Any) -> None:
            self.steps.append(step)

    plugin = Plugin()
    with losslog.Run("walk", dir=tmp_path, plugins=[plugin]) as run:
        for step in range(3):  # the first of its names is looked at with more care
            if step == 2:
                sys.setprofile(walk)
            run.log_batch({"loss_mask": 1.0, "loss_box_reg": 2.0})
            sys.setprofile(None)
            until(lambda step=step: plugin.steps[-1:] == [step])
        lane = next(name for name in walk.calls if name.endswith("Plugin"))
        calls = {name: list(each) for name, each in walk.calls.items()}
    walk.calls = calls
    walked = {
        "training": walk.files("MainThread", ("run.py", "log_batch"), ("recording/intake.py", "put_batch")),
        "drain": walk.files("losslog-drain", ("recording/intake.py", "take"), ("journal/file.py", "append")),
        "lane": walk.files(lane, ("journal/tail.py", "read"), ("delivery/caller.py", "fresh")),
    }
    walked["drain"].insert(0, "recording/recorder.py")  # which called `Queue.take`
    walked["lane"].insert(0, "delivery/lane.py")  # which called `Tail.read`
    walked = {name: list(dict.fromkeys(files)) for name, files in walked.items()}
    assert {name: len(files) for name, files in walked.items()} == {"training": 3, "drain": 8, "lane": 6}
    page = DESIGN.read_text("utf-8")
    told = {thread: re.findall(r"`([a-z]+(?:/[a-z]+)?\.py)`", line) for thread, line in
            re.findall(r"^\| (training|drain|lane) \|(.*)$", page, re.M)}  # fmt: skip
    assert told == walked
