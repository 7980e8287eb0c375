"""What a journal may decide in a process that did not write it: a run folder may come from anybody.

Lanes' threads and the main thread of commands; looks at files, opens none. Contract:

- Of the options in a journal only those count that the plugin declares harmless (``journal_options``): no host, no
  place, no credential, no file to read. All others come from the command line or the environment.
- A checkpoint is handed on where it is a regular file, or a folder of such, below the run folder or a folder that was
  named, with links resolved first. What the run's own process logged is its user's own word.
- So is a picture: one that is not is None for the plugin, which draws without it. A thumbnail lies in the run folder,
  whoever speaks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from losslog.journal.redaction import REDACTED, redact
from losslog.runtime.containment import attempt
from losslog.runtime.notices import Once


def from_journal(factory: Any, options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a plugin as a journal has them, without what was redacted.

    Args:
        factory: the plugin's class; its ``journal_options`` are names, or ``name=value`` for one value only.
        options: what the journal has.

    Returns:
        Those that the journal may decide, and the others.
    """
    allowed = {str(each) for each in getattr(factory, "journal_options", ())}
    taken: dict[str, Any] = {}
    local: dict[str, Any] = {}
    for name, value in (options if isinstance(options, Mapping) else {}).items():
        if value == REDACTED:
            continue
        steps = name == "batch_every" and type(value) is int and value >= 1  # the lane's own
        (taken if steps or {name, f"{name}={value}"} & allowed else local)[name] = value
    return taken, local


def into_journal(factory: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a plugin as a journal may have them: those it declares secret (``secret_options``) are left out."""
    hidden = {str(each) for each in getattr(factory, "secret_options", ())}
    return redact({name: REDACTED if name in hidden else value for name, value in options.items()})  # type: ignore[no-any-return]


class Trust:
    """Whose word the records are.

    Args:
        since: seq of the first record that the run's own process wrote; None: it wrote none that is delivered here.
        folders: where checkpoints may lie, beside the run folder.
        pictures: where pictures may lie, likewise; paths in the journal begin there.
        known: pictures that the run's own process was seen to name, as their real paths.
    """

    def __init__(
        self, since: int | None = None, folders: Sequence[Path] = (), pictures: Sequence[Path] = (),
        known: Container[str] = (),
    ) -> None:  # fmt: skip
        self._since, self._folders, self._pictures, self._known = since, folders, pictures, known
        self._once = Once()

    def seen(self, data: Mapping[str, Any], home: Path, seq: int) -> dict[str, Any]:
        """The data of ``on_images`` with files that may be read here, as absolute paths; others are None.

        Args:
            data: the record's.
            home: the run folder.
            seq: the record's.
        """
        own = self._since is not None and (seq < 0 or seq >= self._since)  # -1: called inline, before it is a record
        named, images = data.get("folder"), []
        begin = [Path(named or home)] if own else [home, *self._pictures]
        # A parent of the data folder may have been named; what is read lies in there all the same.
        within = begin if own or not named else [*begin, Path(str(named))]
        for image in data.get("images") or ():
            path = _picture(image.get("path"), within, None if own else begin)
            if path is None and self._known and named:
                place = _picture(image.get("path"), [Path(named)], None)
                path = place if place in self._known else None
            small = _picture(image.get("thumbnail"), [home], [home])
            if path is None and small is None and image.get("path"):
                self._no_picture(str(image["path"]), own=own)
            images.append({**image, "path": path, "thumbnail": small})
        return {**data, "images": images}

    def _no_picture(self, path: str, *, own: bool) -> None:
        if own:
            self._once("the picture %s is not there any more: drawn without it", path[:300], key="picture")
        else:
            text = "the picture %s is not in the run folder: drawn without it; if you have it, say --images-in FOLDER"
            self._once(text, path[:300], key="picture")

    def admits(self, data: Mapping[str, Any], home: Path, seq: int) -> bool:
        """Whether the checkpoint of a record may be handed to a plugin, which may upload it.

        Args:
            data: the record's.
            home: the run folder.
            seq: the record's.
        """
        if self._since is not None and seq >= self._since:
            return True
        named = str(data.get("path"))
        try:
            roots = [Path(os.path.realpath(each)) for each in (home, *self._folders)]
            if all(_lies_in(path, roots) for path in _below(home / named)):
                return True
        except (OSError, ValueError):  # no place at all
            pass
        text = (
            "the checkpoint %s is not in the run folder, and another process logged it: not handed on. If it is yours: "
            "losslog replay RUN --to PLUGIN --checkpoints-in FOLDER"
        )
        self._once(text, named[:300], key="outside")
        return False


OWN: Final = Trust(-1)  # what is called in the process that speaks


def _picture(path: Any, begin: Sequence[Path], roots: Sequence[Path] | None) -> str | None:
    """The regular file that a path means, joined with a folder; below one of the roots where some are named."""
    for folder in begin if path else ():
        place, error = attempt(_regular, folder / str(path), roots)
        if error is None and place is not None:
            return place
    return None


def _regular(path: Path, roots: Sequence[Path] | None) -> str | None:
    place = Path(os.path.realpath(path))
    inside = roots is None or any(place.is_relative_to(os.path.realpath(root)) for root in roots)
    return str(place) if inside and place.is_file() else None


def _below(path: Path) -> Iterator[Path]:
    """The path itself, and what is in it where it is a folder."""
    yield path
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder, each) for each in (*folders, *files))


def _lies_in(path: Path, roots: Sequence[Path]) -> bool:
    place = Path(os.path.realpath(path))
    if not any(place.is_relative_to(root) for root in roots):
        return False
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return True  # the plugin says so
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
