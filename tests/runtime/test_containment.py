from __future__ import annotations

import errno
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from losslog import BackendUnavailable
from losslog.runtime.containment import attempt, long_form, means_not_now, one_line


def raiser(error: BaseException) -> Any:
    def raising() -> None:
        raise error

    return raising


def test_a_result_passes() -> None:
    assert attempt(lambda a, b: a + b, 1, b=2) == (3, None)


@pytest.mark.parametrize(
    "error", [ValueError(), SystemExit(3), GeneratorExit(), RecursionError(), MemoryError()], ids=repr
)
def test_whatever_is_raised_is_contained(error: BaseException) -> None:
    assert attempt(raiser(error)) == (None, error)


def test_the_users_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt(raiser(KeyboardInterrupt()))


def test_an_interrupt_in_another_thread_is_a_plugins_and_contained() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(attempt(raiser(KeyboardInterrupt()))[1]))
    thread.start()
    thread.join()
    assert isinstance(found[0], KeyboardInterrupt)


@pytest.mark.parametrize(
    "error",
    [BackendUnavailable(), ConnectionResetError(), TimeoutError(), OSError(errno.ENOSPC, ""), OSError(errno.EIO, ""),
     OSError(errno.ESTALE, ""), OSError(errno.EMFILE, "")],
    ids=repr,
)  # fmt: skip
def test_errors_that_mean_not_now(error: BaseException) -> None:
    assert means_not_now(error)


@pytest.mark.parametrize(
    "error", [ValueError(), OSError(errno.EACCES, ""), FileNotFoundError(), SystemExit()], ids=repr
)
def test_errors_that_do_not(error: BaseException) -> None:
    assert not means_not_now(error)


def test_one_line_is_one_line_without_control_characters() -> None:
    assert one_line(ValueError("a\n\x1b[31mb\x07\u202e")) == "ValueError: a ?[31mb??"


def test_one_line_is_short() -> None:
    assert len(one_line(ValueError("x" * 1000))) < 320


def test_an_error_without_text_is_its_name() -> None:
    assert one_line(KeyError()) == "KeyError"


def test_the_long_form_is_the_traceback() -> None:
    _, error = attempt(raiser(ValueError("here")))
    assert error is not None
    assert long_form(error).startswith("Traceback")
    assert long_form(error).endswith("ValueError: here")


@pytest.mark.parametrize(
    ("module", "make", "not_now"),
    [
        ("requests", lambda m: m.exceptions.ConnectionError("no"), True),
        ("requests", lambda m: m.exceptions.ReadTimeout("no"), True),
        ("requests", lambda m: m.exceptions.InvalidURL("no"), False),
        ("requests", lambda m: m.exceptions.HTTPError(response=answer(503)), True),
        ("requests", lambda m: m.exceptions.HTTPError(response=answer(403)), False),
        ("urllib3", lambda m: m.exceptions.MaxRetryError(None, "/"), True),
        ("urllib3", lambda m: m.exceptions.LocationParseError("x"), False),
        ("httpx", lambda m: m.ConnectError("no"), True),
        ("httpx", lambda m: m.ReadTimeout("no"), True),
        ("httpx", lambda m: m.HTTPStatusError("no", request=None, response=answer(429)), True),
        ("httpx", lambda m: m.HTTPStatusError("no", request=None, response=answer(404)), False),
        ("httpx", lambda m: m.InvalidURL("no"), False),
        ("aiohttp", lambda m: m.ServerDisconnectedError(), True),
        ("urllib.error", lambda m: m.URLError("no"), True),
        ("urllib.error", lambda m: m.HTTPError("http://h", 502, "no", {}, None), True),
        ("urllib.error", lambda m: m.HTTPError("http://h", 401, "no", {}, None), False),
        ("socket", lambda m: m.gaierror(-2, "Name or service not known"), True),
        ("http.client", lambda m: m.IncompleteRead(b""), True),
    ],
    ids=range(18),
)
def test_nobody_answers_whatever_the_client(module: str, make: Any, not_now: bool) -> None:
    assert means_not_now(make(pytest.importorskip(module))) is not_now


def answer(status: int) -> Any:
    return SimpleNamespace(status_code=status, request=None)
