"""What a user passes as config, as it may be written: structured values as dicts, secrets out, text that encodes.

No thread, no I/O. Contract:

- What has fields (dataclass, Namespace, named tuple, attrs, pydantic, OmegaConf) becomes a dict first; all else
  that is not JSON becomes a truncated ``repr``. Nothing here raises, whatever an object does when it is looked at.
- A text under a key that says it is secret is replaced, however deep below it. Text is searched, whatever it was
  before: ``key=value``, ``key: value``, ``--key value`` (also as two items of a list), passwords in URLs, and tokens
  that are known by their form.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any, Final

from losslog.journal.shapes import BIG
from losslog.runtime.containment import attempt, encodable

REDACTED: Final = "[redacted]"
MAX_DEPTH: Final = 50  # dicts and lists in each other
LONGEST: Final = 200  # characters of a repr
# Looked for in names without their punctuation and case: privateKey, PRIVATE-KEY and private_key are one.
_WORDS: Final = ("apikey", "accesskey", "privatekey", "signingkey", "token", "password", "passwd", "passphrase",
                 "secret", "credential", "authorization", "cookie", "accountkey", "webhook", "losslognotify",
                 "notifyurl")  # fmt: skip
_WHOLE: Final = frozenset({"auth", "bearer", "pass", "pwd", "dsn", "jwt", "otp", "sas", "pat", "githubpat", "cred",
                           "creds", "csrf", "xsrf", "sessionid"})  # fmt: skip
# Whose key opens something, where it is called no more than that: WANDB_KEY, licenseKey.
_KEYS: Final = re.compile(
    r"(wandb|openai|anthropic|comet|neptune|clearml|huggingface|^hf|aws|s3|gcp|gcs|azure|google|client|license|encryption"
    r"|subscription|storage|master|deploy|ssh)key$"
)
_EVEN_NUMBERS: Final = re.compile(
    r"^pwd$|password|passwd|passphrase|secret|credential|key$"
)  # under these, numbers too
# Of words apart from each other: a session token is no number of tokens.
_INNOCENT: Final = re.compile(
    r"tokeni[sz][a-z]*|tokens?_?(count|len|num|type|embed|per(?![a-z]))|(?<![a-z])(num|max|min|n|per)_?tokens?(?![a-z])"
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_NAMED: Final = re.compile(
    r"""(?P<name>(?<![\w.-])-{0,2}[\w.-]{0,80}?(?:[a-z0-9][_-]?key(?=["']?\s*[=:])
            |(?:api|access|private|signing)[_-]?key|token|passw|passphrase|secret|credential|authorization|cookie|pwd
            |(?:auth|pass|dsn|jwt|otp|sas|pat|creds?|[cx]srf|session_?id)(?=["']?\s*[=:]))[\w.-]{0,80})(?P<quote>["']?)
        (?P<sign>\s{0,9}[:=]\s{0,9}|\s{1,9})
        (?P<scheme>(?:Bearer|Basic|Token|Digest)\s+)?
        (?P<value>"[^"]*"|'[^']*'|[^\s,;&)}\]"']+)""",
    re.VERBOSE | re.IGNORECASE,
)
_PASSWORDS: Final = (
    re.compile(r"(://[^\s/:@]{0,200}):[^\s/]{0,2000}@"),
    re.compile(r"(://[^\s/:@\[]{0,200}):(?!\d{1,5}/|\[redacted\])[^\s@\"']{0,200}@"),  # one with a slash in it
    # Without a scheme: before a host with a port, or with a character in it that is in no other such text.
    re.compile(r"((?<![\w./:@%+-])[\w.%+-]{2,100}):[^\s:\"']{1,200}@(?!sha\d)(?=[\w.-]{1,200}(?::\d{1,5}\b|\())"),
    re.compile(r"((?<![\w./:@%+-])[\w.%+-]{2,100}):(?!//)[^\s:\"'\[]{0,200}[/@][^\s:\"']{0,200}@(?!sha\d)(?=[\w.-])"),
)
_URLS: Final = (
    re.compile(r"((?:^|\s)(?:-u|--(?:proxy-)?user)[ =]+[^\s:]{1,100}:)[^\s\"']+"),  # curl's
    re.compile(r"(/bot\d{5,}:)[\w-]{20,}"),
    re.compile(r"(https?://)[^\s/@:\"'\[]{1,200}(?=@)", re.I),  # a token in place of a user
    re.compile(r"([?&](?:sig|signature|x-amz-signature|key|code)=)[^&\s\"']+", re.I),
    # of services that send messages: who has the address can write there
    re.compile(
        r"\b((?:slack|discord|tgram|msteams|workflows|gchat|mmosts?|rockets?|zulip|matrixs?|wxteams|mailtos?|ntfys?|gotifys?"
        r"|pover|pbul|prowl|ifttt|twilio|signals?|sendgrid|mailgun|opsgenie|pagerduty|feishu|lark|dingtalk|bark"
        r"|revolt|guilded|whatsapp|apprises?)://)[^\s\"']+",
        re.I,
    ),
    re.compile(r"(https?://(?:hooks\.[^\s/\"']+/[^\s/\"']+|[^\s\"'?]{1,300}?/webhook\w{0,9})/)[^\s\"']+", re.I),
)
_FORMS: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)|"
    r"\b(?:gh[pousr]_|github_pat_|glpat-|gl[a-z]{2,5}t-|hf_|xox[abeprs]-|xapp-|sk-|AKIA|ASIA|eyJ[\w-]{8,}\.eyJ|dop_v1_|nvapi-|"
    r"dckr_pat_|pypi-|[sr]k_(?:live|test)_|ya29\.|hvs\.)[\w.-]{12,}|"
    r"\b(?:AIza[\w-]{30,}|SG\.[\w-]{16,}\.[\w-]{16,}|(?:npm_|r8_)[A-Za-z0-9]{30,}|dapi[0-9a-f]{32}|\d{8,10}:AA[\w-]{30,})|"
    r"\b(?:Bearer|Basic)\s+[\w.+/=-]{8,}"
)


def redact(value: Any, key: str = "", within: tuple[int, ...] = ()) -> Any:
    """Config as it may be written.

    Args:
        value: what it is.
        key: the name that it stands under.
        within: ids of what it is in: what contains itself is "...".
    """
    found, error = attempt(_redacted, value, key, within)
    return found if error is None else _odd(value, error)


def _redacted(value: Any, key: str, within: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    inner = _structured(value)
    if isinstance(inner, Mapping | list | tuple | set | frozenset):
        if id(value) in within or len(within) > MAX_DEPTH:
            return "..."
        within = (*within, id(value))
    if isinstance(inner, Mapping):
        pairs, _ = attempt(lambda: list(inner.items()))
        named = [(_named(name), each) for name, each in pairs or ()]
        return {_text(name): redact(each, _below(key, name), within) for name, each in named}
    if isinstance(inner, list | tuple | set | frozenset):
        items = sorted(inner, key=repr) if isinstance(inner, set | frozenset) else list(inner)
        return [redact(each, _below(key, before), within) for each, before in zip(items, _labels(items), strict=True)]
    if isinstance(value, int | float):
        if is_secret(key) and _EVEN_NUMBERS.search(re.sub(r"[^a-z]", "", key.lower())):
            return REDACTED
        return value + 0 if isinstance(value, float) or -BIG < value < BIG else _cut(hex(value))
    if is_secret(key):
        return REDACTED
    if isinstance(value, str):
        return _text(str(value))
    return _text(_shown(value))


def _named(name: Any) -> str:
    text, error = attempt(str, name)
    return _odd(name, error) if text is None else text


def _odd(value: Any, error: BaseException | None) -> str:
    return f"<{type(value).__name__} that raises {type(error).__name__}>"


def is_secret(name: str) -> bool:
    """Whether what stands under this name is nobody's business."""
    squashed = _INNOCENT.sub("", _CAMEL.sub("_", name).lower()).replace("_", "")
    return squashed in _WHOLE or any(word in squashed for word in _WORDS) or bool(_KEYS.search(squashed))


def hide(text: str) -> str:
    """``text`` without what looks like a secret in it."""
    for pattern in _PASSWORDS:
        text = pattern.sub(rf"\1:{REDACTED}@", text)
    for pattern in _URLS:
        text = pattern.sub(rf"\1{REDACTED}", text)
    return _FORMS.sub(REDACTED, _NAMED.sub(_hide_named, text))


def _hide_named(match: re.Match[str]) -> str:
    name, sign, value = match["name"], match["sign"], match["value"]
    if not is_secret(name) or (not sign.strip() and not name.startswith("-")) or value.startswith("[redacted"):
        return match[0]
    bare = value.strip("\"'")
    if attempt(float, bare)[1] is None or bare in ("None", "True", "False", "null", "true", "false"):
        return match[0]
    hidden = REDACTED if value == bare else value[0] + REDACTED + value[0]
    return f"{name}{match['quote']}{sign}{match['scheme'] or ''}{hidden}"


def _below(key: str, name: str) -> str:
    """The name that decides about what stands under ``name`` below ``key``."""
    return key if is_secret(key) else name


def _labels(items: Sequence[Any]) -> list[str]:
    """By item of a list the name that it is the value of: ``["--api-key", VALUE]``, ``("Authorization", VALUE)``."""
    pair = len(items) == 2
    labels = [""]
    for each in items[:-1] if items else []:
        flag = isinstance(each, str) and (each.startswith("-") or pair) and "=" not in each and is_secret(each)
        labels.append(each if flag else "")
    return labels[: len(items)]


def _text(text: str) -> str:
    return hide(encodable(text))


def _shown(value: Any) -> str:
    text = repr(value)
    for name, item in list((attempt(vars, value)[0] or {}).items()):  # its own repr may show them bare
        if isinstance(item, str) and item and is_secret(str(name)):
            text = text.replace(item, REDACTED)
    return _cut(hide(text))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _structured(value: Any) -> Any:
    """A value with fields as a dict of them, an OmegaConf container as a dict or list; everything else as it is."""
    if isinstance(value, str | bytes | int | float | type):
        return value
    found, _ = attempt(_fields, value)
    return value if found is None else found


def _fields(value: Any) -> Any:
    kind = type(value)
    if kind.__module__.partition(".")[0] == "omegaconf":
        convert = sys.modules["omegaconf"].OmegaConf.to_container
        resolved, error = attempt(convert, value, resolve=True)
        return convert(value, resolve=False) if error is not None else resolved  # ??? and ${nowhere} stay as they are
    if isinstance(value, Mapping):
        return None
    argparse = sys.modules.get("argparse")  # whoever has a Namespace has imported it
    if isinstance(value, (SimpleNamespace, *((argparse.Namespace,) if argparse else ()))):
        return vars(value)
    if is_dataclass(value):
        names = [each.name for each in fields(value)]
    elif isinstance(value, tuple):
        names = list(getattr(value, "_fields", ()))
    elif hasattr(kind, "__attrs_attrs__"):
        names = [each.name for each in kind.__attrs_attrs__]
    else:
        names = list(getattr(kind, "model_fields", ()) or getattr(kind, "__fields__", ()))
        names += list(getattr(value, "model_extra", None) or ())
    return {name: getattr(value, name, None) for name in names} if names else None
