"""Learning that a module has been imported, so that nothing is imported on the script's behalf.

Any thread that imports. Contract:

- The module is found and loaded by whoever would have found and loaded it; we are told afterwards. What a script sets
  before it imports torch (``OMP_NUM_THREADS``) still takes effect.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


class Finder(importlib.abc.MetaPathFinder):
    """Stands first on ``sys.meta_path``.

    Args:
        names: modules to look out for.
        on_loaded: called with the name of each, once it is loaded; must not raise.
    """

    def __init__(self, names: Sequence[str], on_loaded: Callable[[str], None]) -> None:
        self._names = frozenset(names)
        self.on_loaded = on_loaded

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that the others find, with a loader that tells us."""
        if fullname not in self._names:
            return None
        for other in sys.meta_path:
            find = getattr(other, "find_spec", None)
            spec = find(fullname, path, target) if find is not None and other is not self else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self)
                return spec  # type: ignore[no-any-return]
        return None


class _Loader(importlib.abc.Loader):
    """Loads as another loader does, and tells."""

    def __init__(self, loader: Any, finder: Finder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader  # the module itself must not see a difference
        self._loader.exec_module(module)
        self._finder.on_loaded(module.__name__)
