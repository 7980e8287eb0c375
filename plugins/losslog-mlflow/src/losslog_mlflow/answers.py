"""What a tracking server's answer means: it will never take this, it will not now, or it is not MLflow that answers.

Runs on the plugin's lane. Contract:

- Silence, and an answer that is not MLflow's (a proxy's page, whatever its status), pass: they are waited for.
- MLflow's own 4xx, and 413 from anybody, are about what was sent, and stay. 5xx passes.
- What passes but is an answer is ``refused``: it may be about one record, which the lane finds out.
- Each names itself in one line, without a login.

The table is in the README, and `tests/test_answers.py` holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from losslog import BackendUnavailable

LOGIN: Final = frozenset({401, 403})
PASSING: Final = frozenset({408, 425, 429, 499})
TOO_LARGE: Final = 413
_USERINFO: Final = re.compile(r"://[^/@\s]*@")
_STATUS: Final = re.compile(r"failed with error code (\d{3}) !=")


class Answer(NamedTuple):
    """What a server said.

    Attributes:
        status: of HTTP.
        headers: its headers.
        own: whether it is a refusal in MLflow's own words.
    """

    status: int
    headers: Mapping[str, str]
    own: bool


def hide_login(text: str) -> str:
    """``text`` with the login of every address in it left out."""
    return _USERINFO.sub("://", text)


def too_large(error: BaseException) -> bool:
    """Whether a server, or a proxy before it, takes less at once."""
    return status_of(error) == TOO_LARGE


def status_of(error: BaseException) -> int:
    """The HTTP status that an error stands for, 0 where nobody answered."""
    found = _answer(error)
    if found is not None:
        return found.status
    told = _STATUS.search(str(error))
    if told:
        return int(told[1])
    ask = getattr(error, "get_http_status_code", None)  # a local store has no answers, but the same words
    return int(ask()) if ask is not None and not any(map(_silent, _chain(error))) else 0


def passing(uri: str, error: BaseException) -> BackendUnavailable | None:
    """What to raise instead where trying again later makes sense; None where the server will never take it."""
    status, found, place = status_of(error), _answer(error), hide_login(uri)
    wait = None if found is None else found.headers.get("Retry-After")
    again = f", again after {wait[:40]}" if wait else ""
    if status == 0:
        said = f"MLflow at {place} is away: {_silence(error)}"
    elif status in LOGIN:
        said = (
            f"MLflow at {place} refuses the login ({status}): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    elif status in PASSING or status >= 500:
        what = {429: "asks for fewer calls", 503: "is away"}.get(status, "fails")
        said = f"MLflow at {place} {what} ({status}{again})"
    elif status != TOO_LARGE and found is not None and not found.own:
        said = f"what answers at {place} is not MLflow ({status}, {_kind(found)}{again}): a proxy, or another address"
    else:
        return None
    return BackendUnavailable(said, retry_after=wait, refused=status > 0)


def never(uri: str, error: BaseException, what: str) -> str:
    """Why ``what`` will never be taken, in a line."""
    status = status_of(error)
    why = "413, too large for it or for a proxy before it" if status == TOO_LARGE else _words(error)
    return f"MLflow at {hide_login(uri)} does not take {what}: {why}"


def _kind(answer: Answer) -> str:
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()[:40]
    return kind if kind.isascii() and kind.isprintable() and kind else "without a type"


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and what brought it about."""
    found = [error]
    while (inner := found[-1].__cause__ or found[-1].__context__) is not None and inner not in found:
        found.append(inner)
    return found


def _answer(error: BaseException) -> Answer | None:
    """The server's answer that an error is about: mlflow and urllib3 have it where they raise, and keep it there."""
    for each in _chain(error):
        if type(each).__name__ == "TooManyRedirects":  # each an answer, and none
            return None
        own = getattr(each, "response", None)
        trace = each.__traceback__
        while own is None and trace is not None:
            own, trace = trace.tb_frame.f_locals.get("response"), trace.tb_next
        status = getattr(own, "status_code", getattr(own, "status", None))
        if own is not None and isinstance(status, int):
            return Answer(status, getattr(own, "headers", {}), _is_refusal(own))
    return None


def _is_refusal(response: Any) -> bool:
    """Whether an answer is MLflow's own."""
    try:
        return "error_code" in response.json()
    except (ValueError, TypeError, AttributeError, OSError):  # urllib3's is read already
        return False


def _silent(error: BaseException) -> bool:
    from requests import HTTPError, RequestException

    return isinstance(error, RequestException | OSError) and not isinstance(error, HTTPError)


def _silence(error: BaseException) -> str:
    """Why there is no answer, in a few words: mlflow wraps requests, which wraps urllib3, which wraps the socket's."""
    from requests import exceptions as kinds

    chain = _chain(error)
    for kind, words in (
        (kinds.TooManyRedirects, "it redirects without end"),
        (kinds.ConnectTimeout, "no connection in time"),
        (kinds.Timeout, "no answer in time"),
        (kinds.ChunkedEncodingError, "it breaks off in the middle of an answer"),
        (kinds.ContentDecodingError, "its answer cannot be decoded"),
    ):
        if any(isinstance(each, kind) for each in chain):
            return words
    if any(type(each).__name__ in ("RemoteDisconnected", "ProtocolError", "IncompleteRead") for each in chain):
        return "it breaks off in the middle of an answer"
    reason = next((each.strerror for each in reversed(chain) if isinstance(each, OSError) and each.strerror), None)
    return reason or _words(error)


def _words(error: BaseException) -> str:
    """The error's own words on a line; of a page only the beginning."""
    text = " ".join(hide_login(str(error)).split())
    return text if len(text) <= 200 else f"{text[:197]}..."
