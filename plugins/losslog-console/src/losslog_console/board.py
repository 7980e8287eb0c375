"""The live view as lines of text: what stands where, at any width and height.

No thread, no I/O. Contract:

- Every line fits the width; what does not fit the height is counted, never half shown.
- Columns go as the width shrinks, the curve last; a component is never left out for its name's length.
- What an alert calls a component is there at every width, in the place of its curve, or of its share and change.
- Nothing a run contains is acted upon by the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from losslog_console.blocks import title
from losslog_console.spark import spark
from losslog_console.words import clean, clock

if TYPE_CHECKING:
    from rich.text import Text

SORTS: Final = ("as logged", "share", "change", "name")
KEYS: Final = "q quit  s sort  ↑↓ choose  space hide  a all"
STATES: Final = {"running": "green", "finished": "cyan", "stopped": "yellow", "failed": "red", "crashed": "red"}


@dataclass
class Choice:
    """What the person at the keys chose.

    Attributes:
        sort: index into `SORTS`.
        cursor: the component chosen, by place.
        hidden: components that are not shown.
    """

    sort: int = 0
    cursor: int = 0
    hidden: set[str] = field(default_factory=set)


def board(live: Any, width: int, height: int, choice: Choice, *, emoji: bool = True) -> list[Text]:
    """The lines of the view.

    Args:
        live: the run, as `losslog watch` sees it.
        width: of the terminal in cells.
        height: in lines.
        choice: what was chosen with the keys.
        emoji: whether the stream has more than ASCII.
    """
    from rich.text import Text

    top = [_head(live), _progress(live)]
    below = [line for line in (_scores(live), _lanes(live)) if line.plain]
    rows = ordered(live.rows, choice)
    alerts = _alerts(live, max(0, min(3, height - len(top) - len(below) - min(len(rows), 6) - 3)), emoji)
    room = max(1, height - len(top) - len(below) - len(alerts) - 2)  # the heading and the keys
    hidden = len(live.rows) - len(rows)
    told = f"{hidden} hidden" if hidden else ""
    if len(rows) > room:
        first = max(0, min(choice.cursor - room // 2, len(rows) - room))
        told = f"{first + 1}-{first + room} of {len(rows)}" + (f", {told}" if told else "")
    else:
        first = 0
    table = _table(rows[first : first + room], width, choice.cursor - first, emoji)
    keys = "  ".join(
        part for part in (told, KEYS if emoji else KEYS.replace("↑↓", "up/down"), f"by {SORTS[choice.sort]}") if part
    )
    lines = [*top, *table, *below, *alerts, Text(keys, style="dim")]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis" if emoji else "crop")
    return lines[:height]


def ordered(rows: Sequence[Any], choice: Choice) -> list[Any]:
    """The components shown, as sorted; the total stays last."""
    shown = [row for row in rows if row.name not in choice.hidden]
    total = [row for row in shown if row.name == "total"]
    rest = [row for row in shown if row.name != "total"]
    match SORTS[choice.sort]:
        case "share":
            rest.sort(key=lambda row: -(row.share or 0.0))
        case "change":
            rest.sort(key=lambda row: -(row.change if row.change is not None else -9e9))
        case "name":
            rest.sort(key=lambda row: row.name)
    return rest + total


def _head(live: Any) -> Text:
    from rich.text import Text

    line = Text(clean(live.name) or "run", style="bold")
    line.append(f" {live.folder.name}", "not bold dim").append(
        f"  {live.status}", f"bold {STATES.get(live.status, '')}"
    )
    return line


def _progress(live: Any) -> Text:
    from rich.text import Text

    done, length = live.position
    parts = [title(live.epoch, live.epochs)] if live.epoch else []
    if live.step is not None:
        parts.append(f"[{done}/{length}]" if length else f"[{done}]")
    if live.left is not None:
        parts.append(f"ETA {clock(live.left)}")
    if live.status == "running":
        parts.append(f"last record {clock(live.age) if live.age >= 60 else f'{live.age:.0f} s'} ago")
    return Text("  ".join(parts))


def _table(rows: Sequence[Any], width: int, cursor: int, emoji: bool) -> list[Text]:
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    names = max([9, *(cell_len(clean(row.name)) for row in rows)])
    names = min(names, 28 if width >= 100 else 18 if width >= 70 else 14)
    with_val, with_word = width >= 90, width >= 100
    fixed = 2 + names + 1 + 10 + 7 + 9 + (10 if with_val else 0) + (24 if with_word else 0)
    curve = max(0, min(60, width - fixed - 1))
    heading = f"  {'':<{names}} {'now':>9} {'share':>6} {'change':>8}" + (f" {'val':>9}" if with_val else "")
    lines = [Text(heading, style="dim")]
    for place, row in enumerate(rows):
        bad = _style(row.word)
        name = clean(row.name)
        if cell_len(name) > names:
            name = set_cell_size(name, names - 1) + ("…" if emoji else "~")
        line = Text(("> " if place == cursor else "  "), style="bold")
        line.append(set_cell_size(name, names), bad or "not bold")
        line.append(f" {_number(row.value):>9}", f"not bold {bad}".strip())
        word = clean(row.word)
        if word and not with_word and cell_len(word) >= curve:
            room = max(1, width - line.cell_len - 1)
            if cell_len(word) > room:
                word = set_cell_size(word, room - 1) + ("…" if emoji else "~")
            lines.append(line.append(f" {word}", bad))
            continue
        line.append(f" {'' if row.share is None else f'{100 * row.share:.0f} %':>6}", "not bold")
        line.append(f" {_percent(row.change):>8}", _trend(row.change))
        if with_val:
            line.append(f" {'' if row.val is None else _number(row.val):>9}", "not bold")
        if word and not with_word:
            line.append(f" {word}", bad)
        else:
            line.append(f" {spark(row.curve, curve, braille=emoji)}", bad or "not bold cyan")
        if with_word:
            line.append(f" {word}", bad or "not bold")
        lines.append(line)
    return lines


def _number(value: float) -> str:
    return f"{value:.4f}" if value != value or 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3g}"


def _percent(change: float | None) -> str:
    if change is None:
        return ""
    return f"{100 * change:+z.1f} %" if abs(change) < 10 else f"x{1 + change:.3g}"


def _trend(change: float | None) -> str:
    return "not bold" if change is None or abs(change) < 0.005 else "not bold green" if change < 0 else "not bold red"


def _style(word: str) -> str:
    if not word:
        return ""
    return "not bold red" if word.startswith(("non-finite", "diverging")) else "not bold yellow"


def _scores(live: Any) -> Text:
    from rich.text import Text

    parts = [f"{clean(name)} {last:.3f} (best {best:.3f})" for name, last, best in live.scores]
    return Text("  ".join(parts))


def _lanes(live: Any) -> Text:
    from rich.text import Text

    line = Text()
    for name, lag in live.lanes.items():
        line.append(f"{clean(name)} ", "dim")
        line.append(
            "ok  " if lag["complete"] else f"{_size(lag['behind'])} behind  ", "" if lag["complete"] else "yellow"
        )
    return line


def _size(count: int) -> str:
    return (
        f"{count} B"
        if count < 1024
        else f"{count / 1024:.0f} KiB"
        if count < 1 << 20
        else f"{count / (1 << 20):.1f} MiB"
    )


def _alerts(live: Any, most: int, emoji: bool) -> list[Text]:
    from rich.text import Text

    lines = []
    for alert in live.alerts[-most:] if most else []:
        style = {"error": "red", "warning": "yellow"}.get(str(alert.get("level")), "blue")
        where = "" if alert.get("step") is None else f" (step {alert['step']})"
        line = Text(f"{'▲' if emoji else '!'} {clean(alert.get('title'))}{where}", style=style)
        text = " ".join(str(alert.get("text") or "").split())
        lines.append(line.append(f"  {clean(text)}", "dim") if text else line)
    return lines
