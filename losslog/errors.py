"""The exceptions losslog raises, and those a plugin raises to be understood.

No thread, no I/O. Contract:

- `LosslogError` is the base of what losslog itself raises at a caller's line.
- `NotReady` and `BackendUnavailable` are words of the plugin's language: "I cannot serve here" and "not now".
- `StopTraining` is the one exception that passes from an inline plugin into the loop; elsewhere it is a request.
"""

from __future__ import annotations


class LosslogError(Exception):
    """Base class of losslog's own errors."""


class NotReady(LosslogError):
    """Raised by a plugin's constructor when it cannot serve here (vendor package missing, nobody asked for it).

    Under ``plugins="auto"`` the plugin is skipped and the reason is shown; asked for by name, `losslog.Run` raises it.
    """


class BackendUnavailable(LosslogError):
    """Raised by a plugin's hook when its backend is away: the lane rewinds to the last commit and tries again later.

    ``ConnectionError``, ``TimeoutError`` and an ``OSError`` with ENOSPC, EDQUOT, EIO, ESTALE, EMFILE or ENFILE
    mean the same.

    Args:
        retry_after: seconds to wait at least, or what a server's ``Retry-After`` says; it is obeyed up to 5 minutes.
        refused: it is there, and answered that it will not have this: the lane tries fewer records at once, down to
            one, and skips one that alone is refused for ten minutes while those after it are taken.
    """

    def __init__(self, *args: object, retry_after: float | str | None = None, refused: bool = False) -> None:
        super().__init__(*args)
        self.retry_after, self.refused = retry_after, refused


class StopTraining(LosslogError):
    """Raised by a hook to end training.

    By one that is called inline: it passes at once through `losslog.Run.log_batch` to the loop, and
    `losslog.engine.fit` returns with ``stopped``. By any other, and with several ranks: a request to stop.
    """


class PluginError(LosslogError):
    """A plugin named in an explicit list was not found, did not import, or did not accept its options."""


class RunLocked(LosslogError):
    """Another live process (or another `losslog.Run` of this one) writes to, or reads for, the same run folder."""


class JournalError(LosslogError):
    """A run folder or its journal cannot be found or read."""
