"""What an epoch, an evaluation, a checkpoint look like: lines of text.

No thread, no I/O. Contract:

- The epoch's block is the one users write themselves, to the character.
- Labels are emoji where the stream can show them, and nothing instead where it cannot.
- Up to twelve components stand one a line; more stand side by side where the terminal is wide enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from losslog import eval_series, scalars
from losslog_console.words import clean, clock, columns, listed, pairs

MANY: Final = 12
LACKING: Final = 0.05  # share of the training total that a validation may leave out unsaid
NONE: Final[Mapping[str, str]] = MappingProxyType({})
KINDS: Final = {"bbox": ("📦", "Box"), "segm": ("🎭", "Mask"), "keypoints": ("🤸", "Keypoint")}
LEVELS: Final = {"info": "💡", "warning": "🔶", "error": "🚨"}
SYMBOLS: Final = "📊📈📦🎭🤸📏💾🕒💡🔶🚨━"


class Blocks:
    """Makes the lines.

    Args:
        emoji: whether the stream shows them.
        precision: digits after the point.
        width: of the terminal in cells, or None in a pipe: there a component always has its own line.
    """

    def __init__(self, emoji: bool, precision: int, width: int | None) -> None:
        self.emoji = emoji
        self.precision = precision
        self.width = width

    def epoch(
        self,
        epoch: int,
        epochs: int | None,
        losses: Any,
        total: Any,
        val_loss: Any,
        trends: Mapping[str, str] = NONE,
        weights: Mapping[str, float] | None = None,
    ) -> list[str]:
        """The head of an epoch's block, its training losses and its validation loss.

        ``trends`` has what stands behind the value of a component, of ``total``, or of ``""`` for a scalar; ``weights``
        how often a component counts in the total, where that is not once.
        """
        lines = [title(epoch, epochs)]
        if losses is not None:
            lines += self._training(losses, total, trends, weights or {})
        if val_loss is not None:
            value = self._number(scalars("val", val_loss)["val"])
            lines.append(self._mark("📈", f"Validation Loss: {value}{_lack(val_loss, losses, total, weights or {})}"))
        return lines

    def time(self, duration: float | None, lr: Any, best: list[str]) -> list[str]:
        """How long the epoch took, its learning rate and the best so far, in a line; no line where none is known."""
        parts = []
        if duration is not None:
            parts.append(clock(duration) if duration >= 60 else f"{duration:.1f} s")
        if lr is not None:
            rates = {f" ({clean(name)})": rate for name, rate in lr.items()} if isinstance(lr, Mapping) else {"": lr}
            shown = [f"{float(rate):.3g}{name}" for name, rate in rates.items()]
            parts.append(f"lr {', '.join(shown[:3])}{', ...' if len(shown) > 3 else ''}")
        if best:
            parts.append(f"best so far: {', '.join(best)}")
        return [self._mark("🕒", "; ".join(parts))] if parts else []

    def evaluation(self, split: str, metrics: Mapping[str, Any]) -> list[str]:
        """An evaluation: average precisions a line each, other numbers in a list."""
        of = "" if split == "val" else f" ({clean(split)})"
        flat: dict[str, float] = {}
        lines = []
        for kind, scores in metrics.items():
            if not isinstance(scores, Mapping):
                flat[kind] = eval_series({kind: scores})[f"eval/{kind}"]
            else:
                plain = {name: score for name, score in scores.items() if not isinstance(score, Mapping)}
                values = {tag.partition("_")[2]: value for tag, value in eval_series({"x": plain}).items()}
                lines += self._precision(str(kind), values, of)
        if flat:
            lines.append(self._mark("📏", f"Evaluation{of}:"))
            lines += self._list(pairs(flat, self.precision))
        return lines

    def checkpoint(self, path: str, folder: Path) -> str:
        """Where a checkpoint is, from the run folder where it lies inside."""
        shown = Path(path)
        for place in (folder.absolute(), folder):
            if shown.is_relative_to(place):
                shown = shown.relative_to(place)
        return self._mark("💾", f"Saved checkpoint: {clean(shown.as_posix())}")

    def alert(self, level: str, headline: str, text: str, about: list[str]) -> tuple[str, list[str]]:
        """The headline and the paragraphs of an alert, not yet wrapped."""
        where = clean(", ".join(about))
        head = self._mark(LEVELS.get(level, "🔶"), f"{clean(level).capitalize()}: {clean(headline)} ({where})")
        return head, [clean(line) for line in text.splitlines() if line.strip()]

    def batch(self, where: str, losses: Any, total: Any, lr: Any) -> str:
        """One line for one batch, for logs."""
        values = scalars("x", losses, total)
        names = ["total", *sorted(losses)] if isinstance(losses, Mapping) else []
        parts = [f"{clean(name)} {self._number(values[f'x_{name}'])}" for name in names]
        parts = parts or [f"loss {self._number(values['x'])}"]
        if lr is not None:
            rate = next(iter(lr.values()), 0.0) if isinstance(lr, Mapping) else lr
            parts.append(f"lr {float(rate):.3g}")
        return f"{where}  {'  '.join(parts)}"

    def _training(self, losses: Any, total: Any, trends: Mapping[str, str], weights: Mapping[str, float]) -> list[str]:
        values = scalars("train", losses, total)
        if not isinstance(losses, Mapping):
            return [self._mark("📊", f"Training Loss: {self._number(values['train'])}{trends.get('', '')}")]
        components = {name: values[f"train_{name}"] for name in losses}
        entries = [
            f"{each} x {weights[name]:.3g}" if name in weights else each
            for each, name in zip(pairs(components, self.precision), sorted(components), strict=True)
        ]
        whole = f"Total: {self._number(values['train_total'])}"
        if trends and len(entries) <= MANY:
            wide = max(map(len, [whole, *entries]))
            entries = [
                f"{each:<{wide}}{trends.get(name, '')}" for each, name in zip(entries, sorted(losses), strict=True)
            ]
            whole = f"{whole:<{wide}}{trends.get('total', '')}"
        return [
            self._mark("📊", "Training Losses:"),
            f"   {whole}".rstrip(),
            *self._list([each.rstrip() for each in entries]),
        ]

    def _precision(self, kind: str, values: Mapping[str, float], of: str) -> list[str]:
        mark, label = KINDS.get(kind, ("📏", clean(kind)))
        if "AP" not in values:
            return [self._mark(mark, f"{label}{of}: {listed(values.items(), self.precision)}")] if values else []
        detail = f" (AP50: {self._number(values['AP50'])})" if "AP50" in values else ""
        return [self._mark(mark, f"{label} mAP{of}: {self._number(values['AP'])}{detail}")]

    def _list(self, entries: list[str]) -> list[str]:
        if len(entries) > MANY and self.width is not None:
            return columns(entries, self.width)
        return [f"   {entry}" for entry in entries]

    def _mark(self, mark: str, line: str) -> str:
        return f"{mark} {line}" if self.emoji else line

    def _number(self, value: float) -> str:
        return f"{value:.{self.precision}f}"


def title(epoch: int, epochs: int | None) -> str:
    """``Epoch 5/20``."""
    return f"Epoch {epoch}" if epochs is None else f"Epoch {epoch}/{epochs}"


def _lack(val_loss: Any, losses: Any, total: Any, weights: Mapping[str, float]) -> str:
    """What stands behind a validation loss of components that are only a part of what is trained."""
    if not isinstance(val_loss, Mapping) or not isinstance(losses, Mapping):
        return ""
    trained, validated = scalars("train", losses, total), scalars("val", val_loss)
    parts = {name: validated[f"val_{name}"] for name in losses if f"val_{name}" in validated}
    made = sum(float(weights.get(name, 1.0)) * value for name, value in parts.items())
    named = val_loss.keys() - parts.keys()  # the loop, or the model, may say what the total is
    if not parts or named - {"total"} or (named and abs(validated["val"] - made) > 1e-6 * abs(made)):
        return ""
    known = sum(float(weights.get(name, 1.0)) * trained[f"train_{name}"] for name in losses)
    if not abs(trained["train_total"] - known) > LACKING * abs(trained["train_total"]):
        return ""
    return f" (of {clean(', '.join(list(parts)[:3]))}{', ...' if len(parts) > 3 else ''}; the total has more)"
