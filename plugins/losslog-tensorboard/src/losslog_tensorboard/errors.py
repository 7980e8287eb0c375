"""The one exception of this plugin.

No thread, no I/O. Contract:

- `EventsUnavailable` is both what losslog understands as "not now" and the `OSError` that it is.
"""

from __future__ import annotations

from losslog import BackendUnavailable


class EventsUnavailable(BackendUnavailable, OSError):
    """The event files cannot be read or written now: full disk, missing rights, a folder that went away."""
