"""Whether a W&B server can be used now, found out in seconds.

Runs on the plugin's lane. Contract:

- `why_offline` answers within about two seconds, where ``wandb.init`` itself would block for 100 (a login check of ten
  seconds, then 90 for the connection; no option shortens that below eleven). A hung resolver can add its own time.
- Nothing but one GET without credentials is sent.
"""

from __future__ import annotations

import http.client
import netrc
import os
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

PROBE_SECONDS: Final = 1.5


def why_offline(base_url: str, api_key: str | None, identity_token_file: str | None) -> str | None:
    """The reason why a run cannot be online, in a few words, or None where it can."""
    if not (api_key or identity_token_file or _netrc_key(base_url)):
        return "no API key"
    return _probe(base_url)


def _netrc_key(base_url: str) -> str | None:
    """The key that ``wandb login`` stored for this host."""
    candidates = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((path for each in candidates if each and (path := Path(each).expanduser()).is_file()), None)
    if path is None:
        return None
    try:
        found = netrc.netrc(path).authenticators(urlsplit(base_url).hostname or "")
    except (netrc.NetrcParseError, OSError):
        return None
    return found[2] if found else None


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer; where it leads does not matter."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def _probe(base_url: str) -> str | None:
    host = urlsplit(base_url).netloc.rpartition("@")[2]
    opener = urllib.request.build_opener(_Stay)
    try:
        with opener.open(base_url, timeout=PROBE_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        away = error.code >= 500 or error.code == 429
        return f"{host} answers {error.code}" if away else None
    except urllib.error.URLError as error:
        return f"{host} does not answer: {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        return f"{host} does not answer: {error or type(error).__name__}"
