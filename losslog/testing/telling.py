"""Telling a plugin of one record, without a run.

Test thread. Contract:

- It is the call that a lane makes: with the hooks derived from the record, and with the arguments it does not carry.
"""

from __future__ import annotations

from typing import Any

from losslog.delivery.caller import Caller, name_of


def tell(plugin: Any, hook: str, *, run: Any = None, seq: int = 0, time: float = 0.0, **data: Any) -> Any:
    """Call a plugin's hooks for one record, as its lane does: ``on_scalars`` too, where the record has numbers.

    Args:
        plugin: the object.
        hook: the record's hook, e.g. ``on_batch_losses``.
        run: the ``run`` argument; needed by hooks that use it.
        seq: the record's number.
        time: when it was made, in seconds since the epoch.
        **data: the record's arguments; those left out are None.

    Returns:
        What the hook's implementation returned, None where there is none.

    Raises:
        BaseException: what the plugin raises.
    """
    return Caller(name_of(plugin), plugin).call(hook, data, run, seq, time)
