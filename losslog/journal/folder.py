"""Run folders: ``<dir>/<name>/<run id>/``, with the journal, the cursors and what plugins and the engine put there.

No thread. Contract:

- A run id is the UTC second and its fraction as four hex digits: ids sort as runs were made, also within a second.
- RUN, wherever it is taken, is a run folder (or a file in it), a run id (or its beginning), a name (its newest run),
  ``NAME/ID``, ``latest``, or ``NAME/latest``.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from pathlib import Path
from typing import Final

from losslog.errors import JournalError
from losslog.runtime.containment import attempt
from losslog.runtime.notices import did_you_mean

JOURNAL: Final = "journal.jsonl"
FORMS: Final = (JOURNAL, f"{JOURNAL}.zst", f"{JOURNAL}.gz")  # where several are there, the first counts
INDEX: Final = "journal.index"
LOCK: Final = "journal.lock"
CURSORS: Final = "cursors"
RUN_ID: Final = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


def clean_name(name: str) -> str:
    """``name`` as a folder name: no separators, no control characters, not empty, no leading dot."""
    text = re.sub(r"[^\w.+@=-]+", "-", name, flags=re.ASCII).strip("-.")
    if len(text) > 100 or any(char.isalnum() and not char.isascii() for char in name):  # names that differ stay apart
        text = f"{text[:90]}-{zlib.crc32(name.encode('utf-8', 'surrogatepass')):08x}".lstrip("-")
    return text or "run"


def misnamed(name: str) -> str:
    """Why no new run may have this name, since RUN means something else by it; "" where one may."""
    if name.startswith("-"):
        return "it begins as an option does"
    if name in (".", ".."):
        return "it is a folder's name"
    for word, means in (("latest", "the newest run"), ("auto", "the run to resume")):
        if word in (clean_name(name), name.rpartition("/")[2]):
            return f"{word} means {means}"
    return "it is like a run's id" if RUN_ID.fullmatch(name) else ""


def usable(name: str, otherwise: str) -> str:
    """``name`` where a new run may have it, else another."""
    return otherwise if misnamed(name) else name


def absolute(path: str) -> str:
    """``path`` from the working directory on; as it is where that was deleted."""
    return attempt(os.path.abspath, path)[0] or path


def stem_of(plugin: str) -> str:
    """A plugin's name as a file's: itself where that is plain, else one that no other has, in any case of letters."""
    if re.fullmatch(r"[a-z0-9_+=@][a-z0-9_.+=@-]{0,99}", plugin):
        return plugin
    return f"{clean_name(plugin)[:90].lower()}-{zlib.crc32(plugin.encode('utf-8', 'surrogatepass')):08x}"


def file_in(folder: Path, path: str) -> tuple[str, bool]:
    """How a journal calls a file: by its place in the run folder where it is there, else by its absolute path.

    Args:
        folder: the run folder.
        path: absolute, or relative to the working directory or else to the run folder.

    Returns:
        The name, and whether there is such a file.
    """
    try:
        found = next((each for each in (Path(path).absolute(), folder / path) if each.exists()), None)
        home, real = folder.resolve(), None if found is None else found.resolve()
    except (OSError, ValueError):  # a name that no file can have, a disk that fails, no working directory any more
        return path, False
    if real is None:
        return path, False
    return (real.relative_to(home).as_posix() if real.is_relative_to(home) else str(found)), True


def create(directory: Path, name: str) -> Path:
    """A new run folder.

    Raises:
        ValueError: a run cannot have that name.
        OSError: it cannot be made.
    """
    if why := misnamed(name):
        raise ValueError(f"no run can be called {name!r}: {why}; choose another name")
    parent = directory / clean_name(name)
    for each in (*reversed(parent.parents), parent):  # the umask tells who may write, but never everybody
        each.mkdir(mode=0o775, exist_ok=True)
    for extra in range(64):
        folder = parent / run_id(time.time_ns() + extra * 10**9 // 2**16)
        try:
            folder.mkdir(mode=0o775)
        except FileExistsError:
            continue
        return folder.resolve()
    raise FileExistsError(f"no free run id under {parent}")


def run_id(at: int) -> str:
    """The id of a run made at this time, in nanoseconds."""
    seconds, rest = divmod(at, 10**9)
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}-{rest * 2**16 // 10**9:04x}"


def journals(directory: Path, name: str = "*") -> list[Path]:
    """The journals of all runs of a name, each in the form in which it is there: plain, or compressed."""
    found = {each.parent: each for each in directory.glob(f"{name}/*/{JOURNAL}.*") if each.name in FORMS}
    return list((found | {each.parent: each for each in directory.glob(f"{name}/*/{JOURNAL}")}).values())


def made(folder: Path) -> Path:
    """The folder, made where it is not there.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def runs(directory: Path, name: str = "*") -> list[Path]:
    """The run folders of a name, or of all, the newest last."""
    made = {}
    for journal in journals(directory, name):
        folder = journal.parent
        made[folder] = folder.name if RUN_ID.fullmatch(folder.name) else run_id(journal.stat().st_mtime_ns)
    return sorted(made, key=lambda each: (made[each], each.name))


def find(run: str | os.PathLike[str], directory: str | os.PathLike[str] = "runs", name: str | None = None) -> Path:
    """The run folder that RUN means.

    Args:
        run: a run folder (or a file in it), a run id or its beginning, a name, ``NAME/ID``, ``latest``, or
            ``NAME/latest``.
        directory: where runs lie.
        name: look for an id and for ``latest`` only among the runs of this name.

    Raises:
        JournalError: there is none, or several.
    """
    path, text, root = Path(run), os.fspath(run), Path(directory)
    for folder in (path, path.parent, path.parent.parent):
        if any((folder / form).is_file() for form in FORMS) and path.exists():
            return folder.resolve()
    own, _, last = text.rpartition("/")
    if last == "latest":
        name = own or name
    known = runs(root, "*" if name is None else clean_name(name))
    if last == "latest" and (own or text == last):
        if not known:
            whose = "" if name is None else f" of {name!r}"
            raise JournalError(f"no runs{whose} under {root}/ yet (say --dir, or dir=, for another place)"
                               f"{_others(root, name)}")  # fmt: skip
        return known[-1].resolve()
    if own and last and (within := [each for each in runs(root, clean_name(own)) if each.name.startswith(last)]):
        known, text = within, last
    matches = [each for each in known if each.name.startswith(text)] if text else []
    named = [each for each in known if each.parent.name in (text, clean_name(text))]
    exact = [each for each in matches if each.name == text] or named[-1:]
    if len(exact or matches) == 1:
        return (exact or matches)[0].resolve()
    if matches:
        raise JournalError(f"{text} is the beginning of {len(matches)} run ids: "
                           f"{', '.join(each.name for each in matches[:5])}")  # fmt: skip
    raise JournalError(f"no run {text!r}: not a folder with a {JOURNAL}, and no run under {root}/ has that id or name"
                       f"{_others(root, own or text)}")  # fmt: skip


def _others(root: Path, name: str | None) -> str:
    return did_you_mean(name, {each.parent.name for each in runs(root)}) if name else ""
