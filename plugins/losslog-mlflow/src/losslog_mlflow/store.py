"""The way to a tracking store: its address, the client, and what an error from it means.

Runs on the plugin's lane. Contract:

- No password is ever part of an address that is kept or shown: it goes to the environment, where mlflow looks for it.
- A call gives up within seconds and is not retried by mlflow: the lane does that, with the record's own time stamps.
- What passes becomes `BackendUnavailable` (`losslog_mlflow.answers`); anything else stays itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from losslog_mlflow.answers import passing

if TYPE_CHECKING:
    from mlflow import MlflowClient

REDACTED: Final = "[redacted]"
_HOST_PORT: Final = re.compile(r"[\w.-]+:\d{1,5}(/\S*)?")
TIMEOUT_SECONDS: Final = "10"
CLAIM: Final = 60  # looks at a claim, 50 ms apart, until it is taken for left behind


def prepare() -> None:
    """Environment that mlflow reads at its calls, set before it is imported."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # at its default a refused connection blocks for 246 s
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT_SECONDS)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")  # its pool keeps sqlite files open for ever
    if "mlflow" not in sys.modules:  # ours alone: two pages of migrations are no news
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


def connect(uri: str) -> MlflowClient:
    """A client for ``uri``; a password in it moves to the environment.

    Raises:
        ValueError: it has no scheme.
        ModuleNotFoundError: the driver of its database is not installed.
    """
    prepare()
    if _HOST_PORT.fullmatch(uri):
        raise ValueError(f"MLFLOW_TRACKING_URI={uri} has no scheme: use http://{uri}")
    uri = take_login(uri)
    from mlflow import MlflowClient

    with reaching(uri):
        if uri.startswith("sqlite:///") and "?" not in uri:
            make_sqlite(Path(uri.removeprefix("sqlite:///")))
        try:
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
        except ModuleNotFoundError as error:
            scheme = uri.partition("://")[0]
            said = (
                f"a store at {scheme}:// needs the driver {error.name!r}, which is not installed here: pip install it"
            )
            raise ModuleNotFoundError(said, name=error.name) from error


def take_login(uri: str) -> str:
    """``uri`` without its login, which goes to ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``.

    A password that was redacted in the journal is left to the environment of the one who replays.
    """
    scheme, _, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    login, at, host = authority.rpartition("@")
    if scheme not in ("http", "https") or not at:
        return uri
    user, _, password = login.partition(":")
    if user:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(user)
    if password not in ("", REDACTED):
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
    return f"{scheme}://{host}{slash}{path}"


def make_sqlite(path: Path) -> None:
    """Make a sqlite store where there is none.

    That runs all of mlflow's migrations (6-10 s). It is made under another name and linked when complete, so that two
    runs that start together do not migrate the same file, and a killed one does not leave half a store.
    """
    if path.exists():
        return
    prepare()
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
        fresh = Path(folder, path.name)
        MlflowClient(tracking_uri=f"sqlite:///{fresh.absolute().as_posix()}").search_experiments(max_results=1)
        try:
            os.link(fresh, path)  # never over a store that another run has made meanwhile
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            _put(fresh, path)


def _put(fresh: Path, path: Path) -> None:
    """Move a store to its place, never over another: one at a time, by a file that only one can make."""
    claim = path.with_name(f".{path.name}.claim")
    for _ in range(CLAIM):
        if path.exists():
            return
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            time.sleep(0.05)
            continue
        break  # where the other was killed, its claim is taken over in the end
    try:
        if not path.exists():
            os.replace(fresh, path)
    finally:
        claim.unlink(missing_ok=True)


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Around calls to the store: an error that says it is away becomes `BackendUnavailable`."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        instead = passing(uri, error)
        if instead is None:
            raise
        raise instead from error


def already_exists(error: Any) -> bool:
    """Whether an `MlflowException` says that what was to be made is there."""
    return getattr(error, "error_code", "") in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS")
