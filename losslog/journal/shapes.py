"""What the data of a record must look like, by its hook: every reader of a journal gets that or nothing.

No thread, no I/O. Contract:

- `fits` is asked once for each line that is read, by `losslog.journal.records.decode`; what a process writes itself has
  come through the door of `losslog.Run`.
- An argument that a record does not carry is None, and fits: hooks are told so.
- Arguments that nobody here knows, and hooks of a project's own, pass: they are of another version, or another's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, starmap
from typing import Any, Final

DEEPEST: Final = 64  # dicts and lists in each other; readers, plugins and vendors recurse over them
LARGEST: Final = 2**63  # a step or an epoch that every backend can store
YEAR_9999: Final = 253_402_300_800  # seconds since the epoch that every platform can show
_NUMBERS: Final = frozenset({int, float})
_ALWAYS: Final = frozenset({"step", "epoch", "losses", "total"})
_USUAL: Final = _ALWAYS | {"lr", "batch_size"}
_TEXTS: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
BIG: Final = 2.0**1023  # a whole number beyond has no float


def _whole(value: Any) -> bool:
    return value is None or (type(value) is int and -LARGEST <= value < LARGEST)


def _number(value: Any) -> bool:
    return value is None or type(value) is float or (type(value) is int and -BIG < value < BIG)


def _numbers(value: Any) -> bool:
    """Numbers by name, or one number."""
    if type(value) is not dict:
        return _number(value)
    kinds = set(map(type, value.values()))
    if not kinds <= _NUMBERS:
        return False
    return int not in kinds or all(map(_number, value.values()))


def _losses(value: Any) -> bool:
    named = type(value) is not dict or (len(value) > 0 and all(map(str.strip, value)))
    return named and _numbers(value)


def _there(value: Any) -> bool:
    return value is not None and _numbers(value)


def _metrics(value: Any) -> bool:
    """Numbers by name, nested up to twice, as COCO's results are."""
    return value is None or (type(value) is dict and all(map(_metric, value.values())))


def _metric(value: Any) -> bool:
    return value is not None and (
        _number(value) or (type(value) is dict and all(_there(each) for each in value.values()))
    )


def _spread(value: Any) -> bool:
    return value is None or (type(value) is dict and all(type(each) is list and len(each) == 2 and
                             all(type(part) in _NUMBERS and _number(part) for part in each)
                             for each in value.values()))  # fmt: skip


def _text(value: Any) -> bool:
    return value is None or type(value) is str


def _flag(value: Any) -> bool:
    return value is None or type(value) is bool


def _table(value: Any) -> bool:
    return value is None or type(value) is dict


def _weights(value: Any) -> bool:
    return _table(value) and _numbers(value)


def _finite(value: Any) -> bool:
    return type(value) in _NUMBERS and -BIG < value < BIG


def _side(value: Any) -> bool:
    return type(value) is int and 0 < value <= 1 << 20


def _thing(value: Any) -> bool:
    """An object in an image: a box, a label, perhaps a score and a mask."""
    if type(value) is not dict:
        return False
    box, rle, get = value.get("box"), value.get("rle"), value.get
    if type(box) is not list or len(box) != 4 or not all(map(_finite, box)) or type(get("label")) is not str:
        return False
    if rle is not None and not (
        type(rle) is dict and type(rle.get("counts")) is str and type(rle.get("size")) is list
        and len(rle["size"]) == 2 and all(map(_side, rle["size"]))
    ):  # fmt: skip
        return False
    return _text(get("mistake")) and all(get(key) is None or _finite(get(key)) for key in ("score", "iou"))


def _image(value: Any) -> bool:
    if type(value) is not dict or type(value.get("id")) not in (int, str):
        return False
    get = value.get
    things = [get("truth", []), get("predictions", [])]
    counts = [get(key) for key in ("mistakes", "left_out")]
    return (
        _side(get("width")) and _side(get("height")) and _text(get("path")) and _text(get("thumbnail"))
        and all(type(each) is list and all(map(_thing, each)) for each in things)
        and (get("loss") is None or (type(get("loss")) is dict and _numbers(get("loss"))))
        and (get("iou") is None or _finite(get("iou"))) and _whole(get("missed")) and _whole(get("extra"))
        and _flag(get("turned"))
        and all(each is None or (type(each) is dict and all(map(_whole, each.values()))) for each in counts)
    )  # fmt: skip


def _images(value: Any) -> bool:
    return value is None or (type(value) is list and all(map(_image, value)))


def _hardest(value: Any) -> bool:
    """Batches by component: loss, step, ids of images."""
    return value is None or (type(value) is dict and all(
        type(batches) is list and all(
            type(each) is list and len(each) == 3 and type(each[0]) in _NUMBERS and _number(each[0])
            and type(each[1]) is int and _whole(each[1]) and type(each[2]) is list
            and all(type(image) is str or (type(image) is int and _whole(image)) for image in each[2])
            for each in batches)
        for batches in value.values()))  # fmt: skip


def _level(value: Any) -> bool:
    return value is None or value in ("info", "warning", "error")


SHAPES: Final[Mapping[str, Mapping[str, Callable[[Any], bool]]]] = {
    "on_run_start": {"name": _text, "config": _table, "epochs": _whole, "steps_per_epoch": _whole, "options": _table,
                     "origin": _table, "resumed": _flag},
    "on_batch_losses": {"step": _whole, "epoch": _whole, "losses": _losses, "total": _number, "lr": _numbers,
                        "batch_size": _whole, "ranks": _whole, "n": _whole, "spread": _spread, "weights": _weights},
    "on_eval": {"epoch": _whole, "step": _whole, "split": _text, "metrics": _metrics},
    "on_metrics": {"step": _whole, "epoch": _whole, "metrics": _metrics, "detail": _table},
    "on_epoch_end": {"epoch": _whole, "epochs": _whole, "step": _whole, "losses": _losses, "total": _number,
                     "val_loss": _losses, "lr": _numbers, "duration": _number, "dropped": _whole,
                     "weights": _weights, "hardest": _hardest},
    "on_images": {"epoch": _whole, "step": _whole, "split": _text, "name": _text, "images": _images, "folder": _text},
    "on_checkpoint": {"epoch": _whole, "step": _whole, "path": _text},
    "on_alert": {"level": _level, "title": _text, "text": _text, "source": _text, "component": _text, "step": _whole,
                 "epoch": _whole, "key": _text, "cause": _text, "evidence": _table},
    "on_resume": {"epoch": _whole, "step": _whole},
    "on_run_end": {"status": _text, "error": _text, "cost": _table},
}  # fmt: skip


def fits(seq: Any, time: Any, hook: Any, data: Any) -> bool:
    """Whether these make a record."""
    if type(seq) is not int or not 0 <= seq < LARGEST or type(hook) is not str or type(data) is not dict:
        return False
    if type(time) not in _NUMBERS or not 0 <= time < YEAR_9999:
        return False
    shape = SHAPES.get(hook)
    if shape is None:
        return True
    for key, value in data.items():  # what is not there fits
        check = shape.get(key)
        if check is not None and not check(value):
            return False
    return True


def usual(batches: Sequence[tuple[Any, Any, Any, Any]]) -> bool:
    """Whether the records of batches are as nearly all are: flat, their numbers floats. What is not is for `fits`."""
    if not batches:
        return True
    seqs, times, _, tables = zip(*batches, strict=True)
    if set(map(type, tables)) != {dict}:
        return False
    losses, lrs = [each.get("losses") for each in tables], [each.get("lr") for each in tables]
    if set(map(type, losses)) != {dict}:
        return False
    if not all(starmap(_names_are_usual, set(zip(map(tuple, tables), map(tuple, losses), strict=True)))):
        return False
    if not set(map(type, lrs)) <= {float}:
        lrs = [rate for lr in lrs if lr is not None for rate in (lr.values() if type(lr) is dict else (lr,))]
    totals, wholes = [each["total"] for each in tables], list(seqs)
    for key in ("step", "epoch", "batch_size"):
        wholes += [each.get(key, 0) for each in tables]
    floats = chain(times, lrs, totals, chain.from_iterable(map(dict.values, losses)))
    if set(map(type, wholes)) != {int} or set(map(type, floats)) != {float}:
        return False
    return bool(min(wholes) >= 0 and max(wholes) < LARGEST and min(times) >= 0 and max(times) < YEAR_9999)


@lru_cache(maxsize=1024)  # asked with each line, and most are of one loop
def _names_are_usual(keys: tuple[str, ...], components: tuple[str, ...]) -> bool:
    return _ALWAYS <= set(keys) <= _USUAL and bool(components) and all(map(str.strip, components))


def too_deep(text: str) -> bool:
    """Whether JSON is nested more than `DEEPEST` deep."""
    if text.count("{") + text.count("[") <= DEEPEST:
        return False
    depth = 0
    for char in _TEXTS.sub("", text):
        if char in "{[":
            depth += 1
            if depth > DEEPEST:
                return True
        elif char in "}]":
            depth -= 1
    return False
