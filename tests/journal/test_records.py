"""Records and their lines: what is written is what is read, and what cannot be written is refused at the door."""

from __future__ import annotations

import enum
import json
import math
import random
from typing import Any

import numpy as np
import pytest

from losslog.journal.metrics import numbers
from losslog.journal.records import MANY, Record, decode, decode_all, encode, plain, whole, written
from losslog.journal.redaction import REDACTED, redact


def record(**data: Any) -> Record:
    return Record(3, 1764000000.25, "on_batch_losses", data)


def test_a_line_is_as_documented() -> None:
    line = encode(record(step=0, losses={"a": 0.5}))
    assert line == (
        b'{"seq": 3, "time": 1764000000.25, "hook": "on_batch_losses", "data": {"step": 0, "losses": {"a": 0.5}}}\n'
    )


def batch(losses: Any, **more: Any) -> Record:
    return record(step=7, epoch=1, losses=losses, total=0.1, **more)


@pytest.mark.parametrize(
    "each",
    [
        batch({"a": 1 / 3, "b": 5e-324}, lr=0.1),
        batch({'50 %r "quoted" ünï {x}': 1e300}, lr=1, batch_size=2, n=3),
        batch({"a": 1}, lr={"head": 0.1}),
        batch({"a": 0.5}, ranks=2, spread={"a": [0.1, 0.9]}),
        batch({"a": True}),
        batch({"a": None}),
        batch({"a": np.float64(0.5)}),
        batch({"a": 10**400}),
        batch({}),
        batch(0.5, lr=0.1),
        record(losses={"a": 0.5}, step=1),
    ],
    ids=lambda each: ",".join(map(str, each.data["losses"])) if isinstance(each.data["losses"], dict) else "scalar",
)
def test_a_batch_record_is_written_as_the_json_encoder_would(each: Record) -> None:
    for _ in range(2):  # with a template that is new, and one that is known
        assert encode(each).decode("ascii") == json.dumps(each._asdict()) + "\n"


def test_numbers_of_every_size_are_written_as_the_json_encoder_would() -> None:
    draw = random.Random(5)
    sizes = [*(10.0**power for power in range(-20, 20)), 2.0**63, -(2.0**63), 9.999e-5, 999999999999999.9, -0.0, 0.0]
    for size in sizes * 20:
        each = batch(
            {"a": size, "b": size * draw.lognormvariate(0, 1), "c": 3, "d": draw.lognormvariate(0, 0.2)}, lr=2e-5
        )
        assert encode(each).decode("ascii") == json.dumps(each._asdict()) + "\n"


@pytest.mark.parametrize("number", [2**63, -(2**63), 2**64, 10**25, 10**300])
def test_a_whole_number_of_any_size_is_written(number: int) -> None:
    each = batch({"a": number, "b": 0.5}, lr=0.1)
    assert encode(each).decode("ascii") == json.dumps(each._asdict()) + "\n"


@pytest.mark.parametrize(
    "line", [b' {"seq": 1, "time": 2, "hook": "x", "data": {}}\r', b'{"seq": 1, "time": 2.5, "hook": "x", "data": {}}']
)
def test_blanks_around_a_record_are_allowed(line: bytes) -> None:
    assert decode(line).seq == 1


def test_two_records_on_a_line_are_none() -> None:
    with pytest.raises(ValueError, match="not a record"):
        decode(b'{"seq": 1, "time": 2, "hook": "x", "data": {}} {}')


def test_floats_survive_to_the_last_bit() -> None:
    values = [random.Random(1).uniform(-1e300, 1e300) for _ in range(200)] + [5e-324, 1 / 3, -0.0]
    assert decode(encode(record(values=values))).data["values"] == values


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_survive(value: float) -> None:
    assert decode(encode(record(losses={"a": value}))).data["losses"]["a"] == value


def test_nan_survives() -> None:
    assert math.isnan(decode(encode(record(total=math.nan))).data["total"])


def test_a_line_with_nan_is_strict_json() -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(encode(record(total=math.nan, losses=[math.inf])), parse_constant=refuse)


def test_a_text_that_spells_nan_stays_a_text() -> None:
    assert decode(encode(record(title="NaN", text="Infinity", total=math.inf))).data["title"] == "NaN"


@pytest.mark.parametrize("text", ["\u2028", "\x85", "a\nb", "😀", "\ud800"])
def test_no_text_can_break_a_line(text: str) -> None:
    line = encode(record(title=text))
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert decode(line).data["title"] == text


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"1", b"null", b'{"seq": 0}', b"\xff", b"[" * 100_000,
     b'{"seq": "0", "time": 0, "hook": "a", "data": {}}', b'{"seq": true, "time": 0, "hook": "a", "data": {}}',
     b'{"seq": 0, "time": 0, "hook": 1, "data": {}}', b'{"seq": 0, "time": 0, "hook": "a", "data": []}',
     b'{"seq": 0, "time": "x", "hook": "a", "data": {}}'],
    ids=range(13),
)  # fmt: skip
def test_what_is_not_a_record_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a record|Expecting|codec"):
        decode(line)


NUMBERS = [
    b"1",
    b"-0",
    b"-0.0",
    b"1e5",
    b"1E5",
    b"1e999",
    b"-1e999",
    b"NaN",
    b"-Infinity",
    b"1" * 25,
    b"1" * 400,
    b"1" * 5000,
    b"18446744073709551616",
    b"5e-324",
    b"1.7976931348623159e308",
    b"01",
    b"1.",
    b"+1",
    b"null",
    b"true",
    b"0.1000000000000000055511151231257827021181583404541015625",
    b"9007199254740993.0",
    b"1e-999",
]
LINES = [
    *(b'{"seq": 1, "time": 2.5, "hook": "on_batch_losses", "data": {"step": 1, "epoch": 1, "losses": {"a": %s, '
      b'"b": 0.5}, "total": 1.5, "lr": 0.1}}' % number for number in NUMBERS),
    *(b'{"seq": 1, "time": 2.5, "hook": "x", "data": {"a": [%s]}}' % number for number in NUMBERS),
    *(b'{"seq": 1, "time": 2.5, "hook": "on_alert", "data": {"title": %s}}' % text for text in (
        b'"\\ud800"', b'"\\ud83d\\ude00"', b'"a\x01b"', b'"a\x7fb"', b'"\\u0000"', b'"\\x"', b'"\\/"', b'"\xc3\xa9"',
        b'"NaN"', b'{"a": 1, "a": 2}')),
    b"", b"{", b"[]", b"null", b'{"seq": 0}', b"\xff", b'{"a": "', b'"}', b"1}, {2", b"]", b"[",
    b'{"seq": 1, "time": 2.5, "hook": "x", "data": {}} {}', b'{"seq": 1, "time": 2.5, "hook": "x", "data": {}}, {}',
    b' {"seq": 1, "time": 2, "hook": "x", "data": {}}\t\r', b'{"seq": 1, "seq": 2, "time": 2, "hook": "x", "data": {}}',
    b'{"data": {}, "hook": "x", "time": 2, "seq": 9, "more": [1]}', b'{"seq": 1, "time": 2, "hook": ["x"], "data": {}}',
    b'{"seq": 1, "time": 2, "hook": "x", "data": {"a": %s}}' % (b"[" * 70 + b"]" * 70),
    b'{"seq": 1, "time": 2, "hook": "x", "data": {"a": %s}}' % (b"[" * 5000 + b"]" * 5000),
]  # fmt: skip


@pytest.mark.parametrize("odd", LINES, ids=range(len(LINES)))
def test_many_lines_are_the_records_that_each_is_alone(odd: bytes) -> None:
    pytest.importorskip("msgspec")
    usual = encode(batch({"a": 1 / 3, "b": 5e-324}, lr=0.1)).removesuffix(b"\n")
    lines = [*[usual] * MANY, odd, usual]
    alone = []
    for line in lines:
        try:
            alone.append(repr(decode(line)))  # of floats all digits, and NaN is NaN
        except ValueError:
            alone.append("None")
    assert list(map(repr, decode_all(lines))) == alone
    assert list(map(repr, decode_all(lines[-2:]))) == alone[-2:]  # the standard library's parser


def test_floats_of_many_lines_are_those_of_the_standard_library() -> None:
    pytest.importorskip("msgspec")
    draw = random.Random(3)
    lines = [
        b'{"seq": 1, "time": 2, "hook": "x", "data": {"a": %d.%de%d}}'
        % (draw.randrange(10), draw.randrange(10 ** draw.randint(1, 30)), draw.randint(-330, 300))
        for _ in range(5000)
    ]
    assert decode_all(lines) == list(map(decode, lines))


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(4), 4),
        (np.array(2.5), 2.5),
        (np.array([7]), 7),
        (Level.HIGH, 3),
        ((1, (2, 3)), [1, [2, 3]]),
        ({"a": {"b": np.float64(1)}}, {"a": {"b": 1.0}}),
        (None, None),
        ("text", "text"),
    ],
    ids=str,
)
def test_plain_data(value: Any, expected: Any) -> None:
    found = plain(value, "x")
    assert found == expected
    assert type(json.loads(json.dumps(found))) is type(found)


@pytest.mark.parametrize("value", [object(), np.zeros(3), {1, 2}, b"bytes", 1j], ids=lambda each: type(each).__name__)
def test_what_has_no_plain_form_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match=r"metrics\['a'\]\[0\].*" + type(value).__name__):
        plain({"a": [value]}, "metrics")


def test_data_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    loop["again"] = loop
    for door in (plain, numbers):
        with pytest.raises(TypeError, match=r"metrics.*contains itself"):
            door(loop, "metrics")


@pytest.mark.parametrize("number", [10**5000, -(10**400), 2**1023], ids=["5000 digits", "400 digits", "1024 bits"])
def test_a_whole_number_that_no_reader_takes_is_refused(number: int) -> None:
    for door in (plain, numbers):
        with pytest.raises(ValueError, match=r"metrics\['a'\] is too large for a float"):
            door({"a": number}, "metrics")
    assert plain({"a": 10**300}, "metrics") == {"a": 10**300}


@pytest.mark.parametrize("value", ["0.5", None, True, [1.0]], ids=repr)
def test_numbers_takes_nothing_else(value: Any) -> None:
    with pytest.raises(TypeError, match=r"metrics\['bbox'\]\['AP'\]"):
        numbers({"bbox": {"AP": value}}, "metrics")


@pytest.mark.parametrize("value", [np.int64(3), 3, Level.HIGH])
def test_whole_numbers(value: Any) -> None:
    found = whole(value, "step")
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [1.0, "1", True, None], ids=repr)
def test_what_is_not_whole_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="step must be a whole number"):
        whole(value, "step")


@pytest.mark.parametrize(
    "config",
    [
        {"api_key": "s3cret"},
        {"WANDB_API_KEY": "s3cret"},
        {"hub-token": "s3cret"},
        {"db": {"password": "s3cret"}},
        {"tokens": ["a", {"deep": "s3cret"}]},
        {"secret": {"value": "s3cret"}},
        {"credential": b"s3cret"},
        {"url": "postgres://me:s3cret@host/db"},
        {"urls": ["https://a", "x=https://me:s3cret@h https://me:s3cret@i/p"]},
        {"private_key": ("s3cret",)},
        {"note": ValueError("https://me:s3cret@host")},
    ],
    ids=lambda each: next(iter(each)),
)
def test_secrets_are_redacted(config: dict[str, Any]) -> None:
    text = json.dumps(redact(config))
    assert "s3cret" not in text
    assert REDACTED in text


def test_what_is_no_secret_stays() -> None:
    config = {"lr": 0.1, "token_count": 5, "name": "a", "amp": True, "none": None, "url": "https://host/x"}
    assert redact(config) == config


def test_what_is_not_json_becomes_its_repr() -> None:
    assert redact({"x": range(3), "set": {2, 1}}) == {"x": "range(0, 3)", "set": [1, 2]}


def test_a_long_repr_is_cut() -> None:
    assert len(redact({"x": bytearray(1000)})["x"]) == 200


def test_a_repr_that_raises_is_said() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert redact({"x": Bad()}) == {"x": "<Bad that raises RuntimeError>"}


def test_a_config_that_contains_itself_ends() -> None:
    config: dict[str, Any] = {"a": 1}
    config["self"] = config
    config["twice"] = [config, config]
    assert redact(config) == {"a": 1, "self": "...", "twice": ["...", "..."]}


@pytest.mark.parametrize("name", ["name", "text", "key", "path", "level", "split", "status", "error", "title"])
def test_a_component_may_bear_the_name_of_a_text(name: str) -> None:
    """In the journal NaN is a text, and under some keys a text stays one; not among numbers."""
    data = {"step": 1, "epoch": 1, "losses": {name: math.nan}, "total": math.inf, "lr": {name: -math.inf}}
    back = decode(encode(Record(0, 1.0, "on_batch_losses", data)))
    assert repr(back.data) == repr(data)
    metrics = {"step": 1, "metrics": {"bbox": {name: math.nan}}, name: "NaN"}
    assert repr(decode(encode(Record(0, 1.0, "on_eval", metrics))).data) == repr(metrics)


@pytest.mark.parametrize(
    ("metrics", "flat"),
    [
        ({"a": {"b": {"c": {"d": 1.0}}}}, {"a": {"b": {"c/d": 1.0}}}),
        ({"a": {"b": {"c": {"d": {"e": 1.0, "f": 2}}, "g": 3.0}}}, {"a": {"b": {"c/d/e": 1.0, "c/d/f": 2, "g": 3.0}}}),
        ({"a": {"b": {"c": {}}}, "x": 1}, {"a": {"b": {}}, "x": 1}),
    ],
)
def test_metrics_nested_deeper_than_readers_take_are_joined(metrics: Any, flat: Any) -> None:
    assert numbers(metrics, "metrics") == flat


def test_metrics_that_would_get_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"metrics\['a'\]\['b'\]: two entries are called 'c/d'"):
        numbers({"a": {"b": {"c/d": 1.0, "c": {"d": 2.0}}}}, "metrics")


def test_a_masked_number_is_refused() -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(TypeError, match=r"metrics\['a'\] is masked"):
        numbers({"a": numpy.ma.masked}, "metrics")


@pytest.mark.parametrize("name", ["a\ud800", "\udcff", "\ud83d\ude00", "Brötchen"])
def test_a_record_is_written_in_text_that_every_encoder_takes(name: str) -> None:
    for hook, data in (
        ("on_batch_losses", {"step": 1, "epoch": 1, "losses": {name: 0.5}, "total": 0.5, "lr": None}),
        ("on_alert", {"title": name, "text": name}),
    ):
        record, line = written(Record(0, 1.0, hook, data))
        assert decode(line) == record
        json.dumps(record.data, ensure_ascii=False).encode("utf-8")


def test_the_results_of_torchmetrics_are_metrics_by_name() -> None:
    torch = pytest.importorskip("torch")
    found = {
        "map": torch.tensor(0.5), "map_50": torch.tensor(0.75), "map_large": torch.tensor(-1.0),
        "mar_1": torch.tensor(0.5),
        "map_per_class": torch.tensor([1.0, -1.0]), "mar_100_per_class": torch.tensor(-1.0),
        "classes": torch.tensor([3, 5], dtype=torch.int32), "precision": torch.zeros(10, 2, 3),
    }  # fmt: skip
    flat = {"map": 0.5, "map_50": 0.75, "mar_1": 0.5, "map_per_class/3": 1.0}
    assert numbers(found, "metrics") == flat
    assert numbers({"det": found, "acc": 0.9}, "metrics") == {"det": flat, "acc": 0.9}
    one = found | {"classes": torch.tensor(3), "map_per_class": torch.tensor(0.25)}
    assert numbers(one, "metrics") == flat | {"map_per_class/3": 0.25}
    both = {f"segm_{name}" if name != "classes" else name: value for name, value in found.items()}
    assert numbers(both, "metrics") == {f"segm_{name}": value for name, value in flat.items()}


@pytest.mark.parametrize(
    "name", ["AP", "AP50", "APs", "AR100", "ARl", "AP@0.5", "map_75", "mAP", "bbox/AP75", "mar_10"]
)
def test_no_ground_truth_is_no_metric(name: str) -> None:
    assert numbers({"bbox": {name: -1.0, "x": 1.0}}, "metrics") == {"bbox": {"x": 1.0}}


@pytest.mark.parametrize("name", ["loss", "Apple", "map_loss_gain"[4:], "margin", "reward", "ARMA"])
def test_other_metrics_may_be_negative(name: str) -> None:
    assert numbers({name: -1.0}, "metrics") == {name: -1.0}
