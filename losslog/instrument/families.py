"""All who give losses to one observer, by the modules that give them.

Training thread. Contract:

- A module's family is found by its identity; a criterion that is made anew for each batch goes on with the last one's.
- Modules are held weakly.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Final

import torch

from losslog.instrument.family import Family, wrapped_by
from losslog.instrument.fields import fields_of

NOBODY: Final[tuple[Any, Family | None]] = (None, None)


class Families:
    """Those of one observer.

    Args:
        owner: the observer.

    Attributes:
        families: who gives losses.
        by_id: by a module's identity a weak reference to it, and its family.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self.families: list[Family] = []
        self.by_id: dict[int, tuple[Any, Family]] = {}

    def family_of(self, module: Any) -> Family | None:
        """Whose losses a module gives."""
        reference, found = self.by_id.get(id(module), NOBODY)
        if found is not None and reference() is module and found in self.families:
            return found
        return next((each for each in self.families if each.has(module)), None)

    def adopt(self, module: Any) -> Family:
        """Watch a module that gives losses, or is trained."""
        found = self.family_of(module) or next((each for each in self.families if each.includes(module)), None)
        if found is None:
            found = self.successor_of(module)
        if found is None:
            kind = type(module)
            name, count = kind.__name__, 1
            while any(each.name == name for each in self.families):
                count += 1
                name = f"{kind.__name__}_{count}"
            found = Family(self._owner, name, kind, ready_made=kind.__module__.startswith("torch.nn.modules.loss"))
            self.families.append(found)
        found.add(module)
        for inner in wrapped_by(module):  # it may be called itself to validate
            found.add(inner)
            self.by_id[id(inner)] = weakref.ref(inner), found
        self.by_id[id(module)] = weakref.ref(module), found
        return found

    def successor_of(self, module: Any, *, alive: bool = False) -> Family | None:
        """The family of a criterion that the loop makes anew for each batch; ``alive``: or one of its like."""
        if next(module.parameters(), None) is not None:
            return None
        its = [each for each in self.families if each.kind is type(module)]
        return next((each for each in its if not each.modules), its[0] if alive and len(its) == 1 else None)

    def wraps(self, module: Any) -> bool:
        """Whether a module is nothing but a wrapper around one that is watched."""
        lone = len(vars(module).get("_modules", ())) == 1
        return lone and any(self.family_of(each) is not None for each in wrapped_by(module))


def gathered(output: Any, inner: Sequence[tuple[Any, Any]]) -> bool:
    """Whether a wrapper gave for each loss a vector of what its calls of one model gave, as `DataParallel` does.

    Args:
        output: of the wrapper.
        inner: what was called inside it, with what that gave by name.
    """
    if len(inner) < 2 or (fields := fields_of(output)) is None or len({type(each) for each, _ in inner}) > 1:
        return False
    vectors = {
        key: each for key, each in fields.items() if isinstance(each, torch.Tensor) and each.shape == (len(inner),)
    }
    several = [fields_of(its) or {} for _, its in inner]
    ones = [key for key, each in several[0].items() if isinstance(each, torch.Tensor) and each.numel() == 1]
    return bool(ones) and all(key in vectors and all(key in each for each in several) for key in ones)
