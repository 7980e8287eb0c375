"""Where a run comes from: what was typed, which script, which commit, which versions, which machine.

Main thread, once a run. Contract:

- Secrets on the command line are left out as in a config: by the name before them, and in addresses.
- It starts no process and imports nothing: the commit is read from ``.git``, versions of what is imported already.
- What cannot be found out is left out.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from losslog.journal.folder import absolute
from losslog.journal.redaction import redact
from losslog.runtime.containment import attempt

VERSIONS: Final = ("losslog", "torch", "torchvision", "numpy", "pycocotools", "lightning", "mmdet", "detectron2")


def origin(plugins: Sequence[str]) -> dict[str, Any]:
    """What is known of this process.

    Args:
        plugins: the names of those that are on.
    """
    script = absolute(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c", "-m") else ""
    import platform  # 2 ms that processes without a run need not pay

    versions: dict[str, Any] = {"python": platform.python_version()}
    versions |= {name: getattr(sys.modules.get(name), "__version__", None) for name in VERSIONS}
    found = {
        "command": command_line(sys.argv), "script": script, "cwd": attempt(os.getcwd)[0],
        "commit": attempt(commit_of, Path(script).parent if script else Path())[0], "host": platform.node(),
        "versions": {name: str(each) for name, each in versions.items() if each},
        "plugins": list(plugins),
    }  # fmt: skip
    return {key: value for key, value in found.items() if value}


def command_line(words: Sequence[str]) -> list[str]:
    """The words, without what follows a name that says it is secret."""
    found: list[str] = []
    before = ""
    for word in words:
        name, equals, value = str(word).partition("=")
        if equals:
            found.append(f"{name}={redact(value, name.lstrip('-'))}")
        elif word.startswith("-"):
            found.append(str(redact(word)))
        else:
            found.append(str(redact(word, before)))
        before = word.lstrip("-") if word.startswith("--") and not equals else ""
    return found


def commit_of(folder: Path) -> str | None:
    """The commit that is checked out around a folder."""
    for place in (folder.absolute(), *folder.absolute().parents):
        git = place / ".git"
        if git.is_file():  # a worktree, or a submodule
            git = (place / git.read_text("utf-8").partition("gitdir: ")[2].strip()).resolve()
        if (git / "HEAD").is_file():
            return _commit(git)
    return None


def _commit(git: Path) -> str | None:
    head = (git / "HEAD").read_text("utf-8").strip()
    if not head.startswith("ref: "):
        return head if re.fullmatch("[0-9a-f]{40,64}", head) else None
    name = head.removeprefix("ref: ")
    common = git / "commondir"
    places = [git] + ([(git / common.read_text("utf-8").strip()).resolve()] if common.is_file() else [])
    for place in places:
        if (place / name).is_file():
            return (place / name).read_text("utf-8").strip()
        if (place / "packed-refs").is_file():
            found = re.search(rf"^([0-9a-f]+) {re.escape(name)}$", (place / "packed-refs").read_text("utf-8"), re.M)
            if found:
                return found[1]
    return None
