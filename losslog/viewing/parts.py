"""A long journal read by several processes at once.

The reading process and its children. Contract:

- Each child reads a range of whole lines and gives back its `Story`; a child that fails costs time, nothing else: its
  range is read here.
- Short journals, and machines with one core, are read here alone.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Final

from losslog.journal.archive import size_of
from losslog.journal.lines import line_after
from losslog.journal.scan import resumes
from losslog.runtime.containment import attempt
from losslog.viewing.story import Story

WORTH: Final = 48 << 20  # bytes for which starting another process pays
MOST: Final = 4


def story_of(folder: Path) -> Story:
    """The run, read.

    Raises:
        OSError: the journal cannot be read.
    """
    story = Story(folder)
    size = size_of(story.path)
    count = min(MOST, os.cpu_count() or 1, size // WORTH)
    if count < 2 or not sys.executable:
        story.read()
        return story
    edges = [0, *(line_after(story.path, size * part // count) for part in range(1, count)), size]
    ranges = list(pairwise(edges[1:]))
    story.batches.fences = resumes(story.path)
    resumed = bool(story.batches.fences)
    children = [attempt(_start, folder, start, end, resumed)[0] for start, end in ranges]
    story.take(0, edges[1])
    for child, (start, end) in zip(children, ranges, strict=True):
        part, error = attempt(_finish, child)
        if part is None or error is not None:
            story.take(start, end)
        else:
            story.append(part)
    story.read()  # what came meanwhile
    return story


def _start(folder: Path, start: int, end: int, resumed: bool) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    command = [sys.executable, "-m", "losslog.viewing.parts", str(folder), str(start), str(end), str(resumed)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            env=environment)  # fmt: skip


def _finish(child: subprocess.Popen[bytes] | None) -> Story | None:
    if child is None:
        return None
    data, _ = child.communicate()
    if child.returncode:
        return None
    part = pickle.loads(data)
    return part if isinstance(part, Story) else None


def _main() -> None:
    folder, start, end, resumed = sys.argv[1:]
    story = Story(Path(folder))
    story.batches.fences = resumes(story.path) if resumed == "True" else []
    story.take(int(start), int(end))
    sys.stdout.buffer.write(pickle.dumps(story))


if __name__ == "__main__":
    _main()
