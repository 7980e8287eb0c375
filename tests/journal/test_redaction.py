from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import types
from typing import Any, NamedTuple

import attrs
import pytest

from losslog.journal.redaction import REDACTED, redact

SECRET = "s3cret-value"


@dataclasses.dataclass
class Config:
    api_key: str = SECRET
    lr: float = 0.1


@dataclasses.dataclass
class Outer:
    inner: Config = dataclasses.field(default_factory=Config)


@attrs.define
class Attrs:
    password: str = SECRET
    lr: float = 0.1


class Pair(NamedTuple):
    token: str = SECRET
    lr: float = 0.1


class Loud:
    """An object whose repr shows what it has."""

    def __init__(self) -> None:
        self.api_key, self.lr = SECRET, 0.1

    def __repr__(self) -> str:
        return f"Loud({self.api_key}, lr={self.lr})"


class Telling(Loud):
    def __repr__(self) -> str:
        return f"Telling(hub_token='{SECRET}', lr={self.lr})"


STRUCTURED = [
    argparse.Namespace(api_key=SECRET, lr=0.1),
    types.SimpleNamespace(token=SECRET, lr=0.1),
    Config(),
    Attrs(),
    Pair(),
    collections.OrderedDict(api_key=SECRET, lr=0.1),
    types.MappingProxyType({"api_key": SECRET, "lr": 0.1}),
]


@pytest.mark.parametrize("value", STRUCTURED, ids=lambda each: type(each).__name__)
def test_what_has_fields_becomes_a_dict_without_its_secrets(value: Any) -> None:
    found = redact({"config": value})["config"]
    assert sorted(map(str, found.values())) == ["0.1", REDACTED]


def test_a_pydantic_model_becomes_a_dict() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("M", privateKey=(str, SECRET), lr=(float, 0.1))
    assert redact({"m": model()}) == {"m": {"privateKey": REDACTED, "lr": 0.1}}


@pytest.mark.parametrize(
    "value",
    [
        *STRUCTURED,
        Outer(),
        Loud(),
        Telling(),
        [Loud(), Telling()],
        {"privateKey": SECRET},
        {"private-key": SECRET},
        {"Authorization": f"Bearer {SECRET}"},
        {"headers": [("Authorization", f"Bearer {SECRET}")]},
        {"headers": {"Cookie": SECRET}},
        {"awsSecretAccessKey": SECRET},
        {"passphrase": SECRET},
        {"auth": ("me", SECRET)},
        {"argv": ["train.py", "--api-key", SECRET, "--lr", "0.1"]},
        {"argv": ["train.py", f"--api-key={SECRET}"]},
        {"argv": ("--hub_token", SECRET)},
        {"command": f"train.py --api-key {SECRET} --lr 0.1"},
        {"command": f"WANDB_API_KEY={SECRET} python train.py"},
        {"command": f"curl -H 'Authorization: Bearer {SECRET}' http://h"},
        {"note": f'{{"password": "{SECRET}", "lr": 1}}'},
        {"note": f"password: {SECRET}"},
        {"note": f"http://h/?api_key={SECRET}&x=1"},
        {"note": ValueError(f"token={SECRET}")},
        {"url": f"postgres://me:{SECRET}@host/db"},
        {"url": f"postgres://me:{SECRET}/x@host/db"},
        {"url": f"redis://:{SECRET}@host"},
        {"raw": f"token={SECRET}".encode()},
        {"partial": __import__("functools").partial(print, token=SECRET)},
        {"exception": KeyError(f"https://me:{SECRET}@host")},
        {"lambda": {1: {"secret": [SECRET]}}},
        {"set": {f"token={SECRET}"}},
    ],
    ids=str,
)
def test_no_secret_is_written_whatever_it_stood_in(value: Any) -> None:
    text = json.dumps(redact({"x": value}))
    assert SECRET not in text
    assert REDACTED in text


@pytest.mark.parametrize("text", ["ghp_0123456789abcdefghij", "hf_abcdefghijklmnop", "sk-abcdefghijklmnop1234",
                                  "AKIAABCDEFGHIJKLMNOP", "Bearer abcdefgh12345"])  # fmt: skip
def test_tokens_are_known_by_their_form(text: str) -> None:
    assert redact({"note": f"with {text} in it"}) == {"note": f"with {REDACTED} in it"}


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer": "bert", "max_tokens": 512, "token_count": "5", "num_tokens": "many"},
        {"author": "me", "key": "value", "keys": ["a", "b"], "monkey": "x", "passes": "two"},
        {"command": "python train.py --lr 0.1 --name run", "note": "the token of the day, a password manager"},
        {"url": "http://host:8080/a@b", "mail": "me@host", "time": "10:20:30"},
        {"names": ["disc", "box"], "pair": ("a", "b"), "lr": [0.1, 0.2]},
        {"note": "max_tokens=512, token_count: 7"},
        {"data": "s3://bucket/data", "store": "sqlite:///runs.db", "init": "tcp://127.0.0.1:29500", "notify": True},
    ],
    ids=str,
)
def test_what_is_no_secret_stays_as_it_is(config: dict[str, Any]) -> None:
    assert redact(config) == json.loads(json.dumps(config))


@pytest.mark.parametrize("text", ["a\ud800b", "\udcff", "\udfff\ud800"])
def test_half_a_surrogate_pair_is_replaced(text: str) -> None:
    found = json.dumps(redact({text: [text, {"x": text}]}))
    json.loads(found).popitem()[0].encode("utf-8")
    assert "ud800" not in found
    assert "udc" not in found


def test_an_object_that_breaks_when_it_is_looked_at_is_said() -> None:
    class Broken:
        __slots__ = ()

        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("no")

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("no")

        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert "that raises RuntimeError" in redact({"x": Broken()})["x"]


@pytest.mark.parametrize("url", [
    "https://hooks.slack.example/services/T00/B00/s3cret-value", "https://chat.example/api/webhooks/12/s3cret-value",
    "https://x.webhook.office.example/webhook/s3cret-value", "https://s3cret-value@host/x", "http://h/x?sig=s3cret-value",
    "https://h/x?a=1&key=s3cret-value#frag", "https://h/x?a=1&access_token=s3cret-value", "https://u:s3cret-value@h/db",
    "slack://T00/B00/s3cret-value", "tgram://s3cret-value/12", "mailtos://me:s3cret-value@host", "ntfy://s3cret-value",
])  # fmt: skip
def test_a_secret_in_a_url_is_hidden_and_the_rest_is_not(url: str) -> None:
    for found in (redact({"url": url})["url"], redact([f"--tracker={url}"])[0], next(iter(redact({url: 1})))):
        assert SECRET not in found
        assert url.partition("://")[0] in found
    assert redact("see https://host:8080/a/b@c?page=2&q=x") == "see https://host:8080/a/b@c?page=2&q=x"


@pytest.mark.parametrize("name", ["dsn", "webhook", "account_key", "slack_webhook_url", "pwd", "pass", "cookie",
                                  "notify.urls", "notify_url", "LOSSLOG_NOTIFY"])  # fmt: skip
def test_further_names_of_secrets(name: str) -> None:
    assert redact({name: SECRET}) == {name: REDACTED}


def test_numbers_are_hidden_under_passwords_only() -> None:
    assert redact({"password": 12345, "api_key": 7, "max_tokens": 7, "token_dropout": 0.1, "pass": 3, "auth": 1}) == {
        "password": REDACTED, "api_key": REDACTED, "max_tokens": 7, "token_dropout": 0.1, "pass": 3, "auth": 1,
    }  # fmt: skip


S = "s3cr3tV4lueXYZ9876"


@pytest.mark.parametrize(
    "value",
    [
        {"aws_session_token": S}, {"adminToken": S}, {"LOGIN_TOKEN": S}, {"login-token": S}, {"tokenizer_token": S},
        {"jwt": S}, {"otp": S}, {"SAS": S}, {"github_pat": S}, {"creds": S}, {"csrf": S}, {"session-id": S},
        {"WANDB_KEY": S}, {"licenseKey": S}, ["--wandb-key=" + S], ["--session-token", S],
        f"AccountName=a;AccountKey={S}==;x", f"SharedAccessKey={S}", f"pass={S}", f"dsn: {S}", f"jwt={S}",
        f"curl -u user:{S} https://h", f"curl --user user:{S}", f"user:{S}@host:5432/db", f"user:p/{S}@host",
        f"user:p@{S}@host", f"root:{S}@tcp(127.0.0.1:3306)/db",
        f"-----BEGIN RSA PRIVATE KEY-----\n{S}\n{S}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN OPENSSH PRIVATE KEY-----\\n{S}", f"-----BEGIN PRIVATE KEY-----\n{S} and no end",
        f"https://api.telegram.org/bot123456789:AAE{S}/sendMessage", f"https://x.webhook.office.com/webhookb2/{S}",
        f"npm_{S * 2}", f"pypi-{S}", f"dop_v1_{S}", f"sk_live_{S}", f"nvapi-{S}", f"dckr_pat_{S}", f"ya29.{S}",
        f"ASIA{S}", f"AIza{S * 2}", f"SG.{S}.{S}", f"xapp-1-{S}", f"r8_{S * 2}", f"hvs.{S}",
    ],
)  # fmt: skip
def test_secrets_in_further_shapes(value: Any) -> None:
    assert S not in json.dumps(redact(value))


@pytest.mark.parametrize(
    "value",
    [
        {"n_tokens": "5", "numTokens": "5", "max_tokens": "9", "tokens_per_step": "9", "token_type": "x"},
        {"tokenizer": "bert", "tokenizer_name": "x", "ntokens": "3", "MAX_TOKENS": "3"},
        {"keypoints": "a", "sort_key": "lr", "primary_key": "id", "pattern": "p*", "patch": "16", "monkey": "z"},
        {"passes": "3", "bypass": "on", "compass": "n", "sas_net": "x", "pathway": "y", "session": "morning"},
        "registry:5000/image@sha256:ab12", "image:tag@sha256:0123", "pip install x@git+https://github.com/a/b@v1",
        "git@github.com:org/repo", "git@github.com:org/repo@v1.2", "mailto:me@x.org", "12:30@home", "C:/data/a@b",
        "a key: value", "see https://h:8080/x@y", "npm_config_cache", "sk-image", "std:0.5@epoch",
    ],
)  # fmt: skip
def test_what_only_looks_like_one_stays(value: Any) -> None:
    assert redact(value) == value


@pytest.mark.parametrize(
    "part", ["token", "a_key", "pwd ", "ab:/@", "-----BEGIN PRIVATE KEY-----", "--user ", "://a:", "key="]
)
def test_a_long_text_takes_time_by_its_length(part: str) -> None:
    """It took minutes where a pattern had the choice of many places."""
    assert isinstance(redact(part * (200_000 // len(part))), str)


class Sour:
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


class SourNumber(int):
    def __add__(self, other: object) -> int:
        raise ValueError("no")


class SourText(str):
    __str__ = Sour.__str__
    __slots__ = ()


class SourKind:
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise ValueError("no")


@pytest.mark.parametrize("make", [
    Sour, lambda: {Sour()}, lambda: SourNumber(3), lambda: SourText("x"), SourKind, lambda: {Sour(): 1},
], ids=["object", "set", "number", "text", "kind", "key"])  # fmt: skip
def test_whatever_raises_when_it_is_looked_at_costs_itself_alone(make: Any) -> None:
    odd = make()
    found = redact({"odd": odd, "lr": 0.1})
    assert found["lr"] == 0.1
    assert "raises ValueError" in str(found["odd"])
    assert "raises ValueError" in json.dumps(redact({"lr": 0.1, Sour(): odd}))


@pytest.mark.parametrize("number", [10**5000, -(10**5000), 10**400], ids=["long", "below 0", "no float"])
def test_a_whole_number_that_no_reader_takes_is_text(number: int) -> None:
    found = redact({"seed": number, "next": 10**300})
    assert found["seed"].startswith(hex(number)[:150])
    assert len(json.dumps(found)) < 600
    assert found["next"] == 10**300


@dataclasses.dataclass
class Node:
    parent: Any = None
    children: list[Any] = dataclasses.field(default_factory=list)


def test_a_tree_whose_leaves_know_their_root_is_written_once() -> None:
    root = Node()
    root.children = [Node(root), Node(root, [Node(root)])]
    leaf = {"parent": "...", "children": []}
    assert redact({"root": root}) == {
        "root": {"parent": None, "children": [leaf, {"parent": "...", "children": [leaf]}]}
    }
    shared = Config()
    assert redact([shared, shared]) == [{"api_key": REDACTED, "lr": 0.1}] * 2  # twice, but not in itself
