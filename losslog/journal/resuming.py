"""Which run a new process goes on with, and from which checkpoint.

No thread; reads only. Contract:

- A run is gone on with under its own name only.
- ``auto`` is the newest run of a name, unless that has done what it was meant to: it ended as finished, and not before
  its planned epochs. Then, and where there is none, a new run begins.
- Where nobody says from where, ``auto`` goes on from the newest checkpoint that was logged and is still there.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from losslog.errors import JournalError
from losslog.journal.files import check_folder
from losslog.journal.folder import clean_name, find, runs
from losslog.journal.index import index_of
from losslog.journal.records import count_in
from losslog.runtime.containment import attempt

AUTO = "auto"


class Resumed(NamedTuple):
    """What a run is gone on with.

    Attributes:
        folder: the run folder; None for a new run.
        name: the run's name, as it was given.
        checkpoint: the newest one logged whose file is there, or None.
        epoch: the last one that it has to its end.
        step: its global step.
        finished: whether the run has done what it was meant to.
        others: its checkpoints whose files are there, newest first, each with epoch and step.
    """

    folder: Path | None = None
    name: str = ""
    checkpoint: Path | None = None
    epoch: int | None = None
    step: int | None = None
    finished: bool = False
    others: tuple[tuple[Path, int, int], ...] = ()

    def loaded(self, files: Collection[Path]) -> Resumed | None:
        """What a program that has read these files goes on with: the newest checkpoint among them, or None.

        A copy of a checkpoint counts as well.

        Args:
            files: resolved paths.
        """
        its = next((each for each in self.others if each[0].resolve() in files), None)
        its = its or next((each for each in self.others if any(_same(each[0], file) for file in files)), None)
        return None if its is None else self._replace(checkpoint=its[0], epoch=its[1], step=its[2])

    def told(self, after: int | None, epoch: int, *, auto: bool) -> str:
        """What a person is told.

        Args:
            after: the epoch that the resume was asked for, or None.
            epoch: the one that comes next.
            auto: whether it is the newest checkpoint's; else nobody here knows which file was read.
        """
        if self.folder is None:
            return ""
        source = ""
        if auto and self.checkpoint is not None:
            source = f" from {self.checkpoint.name}"
        elif after is None and epoch > 1:
            source = " without a checkpoint: none was logged that is still there,"
        return f"resuming {self.folder.name}{_whose(self.folder)}{source} at epoch {epoch}"


def _whose(folder: Path) -> str:
    """Who else's the folder is, where it is known to be somebody else's."""
    owner = folder.stat().st_uid
    if not hasattr(os, "getuid") or owner == os.getuid():
        return ""
    name, _ = attempt(folder.owner)
    return f", which belongs to {name or f'user {owner}'},"


def resumed(run: str | os.PathLike[str], directory: Path, name: str | None, default: str) -> Resumed:
    """The run that ``resume=`` means.

    Args:
        run: RUN (`losslog.journal.folder.find`), or ``auto``.
        directory: where runs lie.
        name: the name that was given, or None.
        default: the name of a new run.

    Raises:
        JournalError: there is no such run, or it has another name.
    """
    if os.fspath(run) == AUTO:
        several = (past(each.resolve()) for each in reversed(runs(directory, clean_name(default))))
        found = next((each for each in several if each.name == default), Resumed())
        if found.finished or found.folder is None:
            return Resumed()
        check_folder(found.folder)
        return found
    try:
        found = past(find(run, directory, name))
    except JournalError:
        if name is None or os.fspath(run) == "latest":
            raise
        elsewhere, _ = attempt(find, run, directory)
        if elsewhere is None:
            raise
        found = past(elsewhere)  # there is one, of another name
    check_folder(found.folder or directory)
    if name is not None and found.name != name:
        raise JournalError(f"{found.folder} is a run of {found.name!r}, not of {name!r}: leave the name out, or resume "
                           f"{clean_name(name)}/latest")  # fmt: skip
    return found


def past(folder: Path) -> Resumed:
    """What a run folder offers.

    Raises:
        OSError: its journal cannot be read.
    """
    index = index_of(folder)
    lasting, planned = index.lasting, count_in(index.lasting, "epochs")
    found = Resumed(folder, lasting["name"] or folder.parent.name,
                    finished=lasting["ended"] == "finished" and lasting["done"] >= planned)  # fmt: skip
    last, end = index.counted["last_step"], index.counted["last_epoch"]

    def whole(epoch: int, step: int) -> int:
        """The last epoch that is over at a step of this one, whose end was not recorded."""
        if epoch <= lasting["epoch"]:
            return epoch
        begun = step - (count_in(end, "step") if end else -1)
        more = count_in(last, "epoch") == epoch and count_in(last, "step") > step
        return epoch - (more or 0 < begun < lasting["steps"])

    there = tuple(
        (folder / path, whole(epoch, step), step)
        for path, epoch, step in reversed(lasting["checkpoints"])
        if (folder / path).is_file()
    )
    if there:
        found = found._replace(checkpoint=there[0][0], epoch=there[0][1], step=there[0][2], others=there)
    return found


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold the same; of checkpoints the first piece tells, where they do not."""
    if attempt(one.stat)[1] or attempt(other.stat)[1] or one.stat().st_size != other.stat().st_size:
        return False
    found, _ = attempt(filecmp.cmp, one, other, shallow=False)
    return bool(found)
