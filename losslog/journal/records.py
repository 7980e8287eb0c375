"""A record: one call of one hook with plain data, and its line in the journal.

No thread, no I/O. Contract:

- One record is one ASCII line ``{"seq": 0, "time": 1764000000.0, "hook": "on_batch_losses", "data": {...}}``.
- Floats survive to the last bit; NaN and the infinities travel as the strings "NaN", "Infinity", "-Infinity".
- `plain` is the door for data that users pass: what is not JSON-like is refused with the path of the offender.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from operator import attrgetter, itemgetter
from types import GenericAlias
from typing import Any, Final, NamedTuple

from losslog.journal.shapes import BIG, LARGEST, fits, too_deep, usual
from losslog.runtime.containment import attempt, encodable

Data = dict[str, Any]

NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
# Only text may stand under these keys, so a string that spells "NaN" there stays a string.
TEXT_KEYS: Final = frozenset({"name", "config", "options", "origin", "title", "text", "source", "component", "key",
                              "path", "level", "split", "status", "error"})  # fmt: skip
NUMBER_KEYS: Final = frozenset({"losses", "val_loss", "metrics", "lr", "spread"})  # below them any name has a number


class Record(NamedTuple):
    """One call of one hook.

    Attributes:
        seq: position in the run, from 0, without gaps.
        time: seconds since the epoch, stamped once, when the record was made.
        hook: the hook's name, e.g. ``on_batch_losses``.
        data: the hook's arguments without ``run``, ``seq`` and ``time``: dicts, lists, strings, numbers, None.
    """

    seq: int
    time: float
    hook: str
    data: Data


_OF_ROW: Final = attrgetter(*Record._fields)
_OF_BODY: Final = itemgetter(*Record._fields)
_make: Final[Callable[[Any], Record]] = partial(tuple.__new__, Record)
_encode = json.JSONEncoder(allow_nan=False, separators=(", ", ": ")).encode
_decode = json.JSONDecoder().raw_decode
_NUMBERS: Final = {int, float}
MANY: Final = 64  # lines; fewer are not worth another import
MAX_DEPTH: Final = 50  # dicts and lists in each other; deeper only where one contains itself
_templates: dict[tuple[tuple[str, ...], ...], str] = {}


def template_of(*keys: tuple[str, ...]) -> str | None:
    """What `%` makes a batch's line of: seq, time, and its numbers in their order; None where there is none.

    Args:
        keys: of the record's data, and of the losses in it.
    """
    template = _templates.get(keys)
    if template is None and keys[0][:3] == ("step", "epoch", "losses") and len(_templates) < 1000:  # must not grow us
        fields, parts = ([_encode(key).replace("%", "%%") + ": %r" for key in each] for each in keys)
        fields[2] = f'"losses": {{{", ".join(parts)}}}'
        template = f'{{"seq": %r, "time": %r, "hook": "on_batch_losses", "data": {{{", ".join(fields)}}}}}\n'
        _templates[keys] = template
    return template


def _batch_line(record: Record) -> str | None:
    """A batch record's line, from a template by its keys: what the encoder gives, in half the time. None: ask it."""
    losses = record.data.get("losses")
    if type(losses) is not dict:
        return None
    template = template_of(tuple(record.data), tuple(losses))
    if template is None:
        return None
    step, epoch, _, *rest = record.data.values()
    numbers = (record.seq, record.time, step, epoch, *losses.values(), *rest)
    try:
        plain_numbers = set(map(type, numbers)) <= _NUMBERS and math.isfinite(sum(numbers))
    except OverflowError:
        return None
    return template % numbers if plain_numbers else None


def encode(record: Record) -> bytes:
    r"""The record's line, ending in ``\n``."""
    line = _batch_line(record) if record.hook == "on_batch_losses" else None
    if line is not None:
        return line.encode("ascii")
    body = {"seq": record.seq, "time": record.time, "hook": record.hook, "data": record.data}
    try:
        text = _encode(body)
    except ValueError:  # a NaN or an infinity somewhere: rare, so the check costs nothing elsewhere
        body["data"] = _spell(record.data)
        text = _encode(body)
    return text.encode("ascii") + b"\n"


def written(record: Record) -> tuple[Record, bytes]:
    """The record as it is written, with its line: half a surrogate pair, which no encoder takes, is a question mark."""
    line = encode(record)
    if b"\\ud" not in line:
        return record, line
    record = record._replace(data=_encodable(record.data))
    return record, encode(record)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value


def decode(line: bytes) -> Record:
    """The record of one line.

    Raises:
        ValueError: the line is not a record.
    """
    try:
        text = line.decode("ascii").strip()
        body, end = _decode(text)
        found = _records([line], [body], _OF_BODY)[0] if end == len(text) else None
    except (KeyError, TypeError, RecursionError):
        found = None
    if found is None:
        raise ValueError(f"not a record: {line[:80]!r}")
    return found


def decode_all(lines: Sequence[bytes]) -> list[Record | None]:
    """The records of lines, None for what is none: all at once, or one by one where something in them is no JSON.

    Many lines go through msgspec where it is installed: where it takes them, it gives what `json` gives.
    """
    try:
        raw = b"[" + b",".join(lines) + b"]"
        rows = None if len(lines) < MANY or not raw.isascii() else attempt(_quick(), raw)[0]
        if rows is not None and len(rows) == len(lines):
            return _records(lines, rows, _OF_ROW)
        bodies, _ = _decode(raw.decode("ascii"))
        if len(bodies) == len(lines):
            return _records(lines, bodies, _OF_BODY)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return [attempt(decode, line)[0] for line in lines]


@cache
def _quick() -> Callable[[bytes], Any]:
    """Decodes many lines at once, or raises: then `json` is asked."""
    msgspec, _ = attempt(importlib.import_module, "msgspec")
    if msgspec is None:
        return lambda raw: None
    fields = [(name, Any) for name in Record._fields]
    row = msgspec.defstruct("Row", fields, gc=False)
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(GenericAlias(list, row)).decode
    return decode


def _records(lines: Sequence[bytes], bodies: Sequence[Any], fields: Callable[[Any], Any]) -> list[Record | None]:
    """The records of lines, None for what is none; KeyError or TypeError where a body has not these fields at all."""
    found = list(map(_make, map(fields, bodies)))
    plain = usual([each for each in found if each.hook == "on_batch_losses"])
    return [each if plain and each.hook == "on_batch_losses" else _checked(line, each)
            for line, each in zip(lines, found, strict=True)]  # fmt: skip


def _checked(line: bytes, record: Record) -> Record | None:
    text = line.decode("ascii")
    if too_deep(text):
        return None
    if ('"NaN"' in text or 'Infinity"' in text) and record.hook != "on_images":  # its numbers are finite, its names not
        record = record._replace(data=_unspell(record.data))
    return record if fits(*record) else None


def _spell(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _spell(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spell(item) for item in value]
    return value


def _unspell(value: Any, texts: frozenset[str] = TEXT_KEYS) -> Any:
    if isinstance(value, str):
        return NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {
            key: item if key in texts else _unspell(item, frozenset() if key in NUMBER_KEYS else texts)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_unspell(item, texts) for item in value]
    return value


def plain(value: Any, path: str) -> Any:
    """Plain data equal to ``value``: 0-d tensors and numpy scalars become numbers, tuples lists.

    Args:
        value: what the user passed.
        path: its name in error messages, e.g. ``metrics['bbox']``.

    Raises:
        TypeError: something in it has no plain form; the message names its path and type.
        ValueError: a whole number in it is so large that no reader takes it.
    """
    if isinstance(value, int) and not -BIG < value < BIG:
        raise ValueError(f"{path} is too large for a float")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if path.count("[") > MAX_DEPTH:
        raise TypeError(f"{path[:60]}...: nested more than {MAX_DEPTH} deep, or it contains itself")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{path}: keys must be strings, got {key!r} of type {type(key).__name__}")
        return {key: plain(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | int | float):  # subclasses: IntEnum, numpy.float64
        return value + 0
    number = getattr(value, "item", None)
    if type(value).__module__.startswith("numpy.ma") and getattr(value, "mask", False):
        raise TypeError(f"{path} is masked: pass a number, or leave it out")
    if number is not None and getattr(value, "size", None) is not None and _count(value) == 1:
        return plain(number(), path)
    raise TypeError(f"{path}: {type(value).__name__} is not a number, string, list or dict of these")


def _count(value: Any) -> int:
    numel = getattr(value, "numel", None)
    return int(numel()) if callable(numel) else int(getattr(value, "size", 0))


def whole(value: Any, name: str) -> int:
    """``value`` as an int.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is larger than backends, and readers of a journal, take.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}")
    found = int(value.__index__())
    if not -LARGEST <= found < LARGEST:
        raise ValueError(f"{name} must be below 2**63, got one of {found.bit_length()} bits")
    return found


def count_in(data: Data, key: str) -> int:
    """The whole number a record has under ``key``; 0 where there is none, or a garbled one."""
    value = data.get(key)
    return value if type(value) is int else 0


def keys_of(alert: Mapping[str, Any]) -> list[str]:
    """Under what an alert is not said again; one of several losses that are not finite has the keys of each."""
    key, evidence = str(alert.get("key")), alert.get("evidence")
    source, _, _ = key.partition("/")
    losses = evidence.get("losses") if source == "non_finite" and isinstance(evidence, dict) else None
    return [key, *(f"{source}/{each}" for each in losses)] if isinstance(losses, list) else [key]
