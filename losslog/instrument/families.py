"""A model and the wrappers around it, seen as one: hooks on those instances that are called from outside.

Any thread that runs the model. Contract:

- Only the outermost call counts: of a wrapper and the model inside it, the wrapper.
- The hooks survive what scripts do to models: they pickle to a built-in that does nothing, a deep copy carries hooks
  that know the copy is not their model, and while torch compiles they return at once.
- A module compiled in place runs its hooks inside the compiled code: there the compiled call itself is wrapped.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any, Final

import torch

from losslog.instrument.signals import guarded

COMPILED_NOTE: Final = r"Using `torch\.compile\(module\)` when there are global hooks"
OnForward = Callable[["Family", Any, Any], None]


class Family:
    """One trained model.

    Args:
        on_forward: called with (family, module, output) after each outermost call.

    Attributes:
        optimizers: the optimizers that drive it; empty: found by their parameters.
        keys: the components seen in training; None before, empty for a scalar.
    """

    def __init__(self, on_forward: OnForward) -> None:
        self._on_forward = on_forward
        self._members: list[_Member] = []
        self._local = threading.local()
        self._driven: dict[int, bool] = {}
        self.optimizers: list[weakref.ref[Any]] = []
        self.keys: tuple[str, ...] | None = None

    @property
    def modules(self) -> list[Any]:
        """The hooked modules that are alive."""
        return [module for member in self._members if (module := member.module()) is not None]

    def includes(self, module: Any) -> bool:
        """Whether a module is one of ours, contains one, or is contained in one."""
        mine = self.modules
        return any(each is module for each in mine) or any(
            part is each for each in mine for part in module.modules() if module is not each
        ) or any(part is module for each in mine for part in each.modules())  # fmt: skip

    def has(self, module: Any) -> bool:
        """Whether a module is hooked already."""
        return any(member.module() is module for member in self._members)

    def add(self, module: Any) -> None:
        """Hook a module."""
        self._members.append(_Member(module, self))

    def compiled(self, module: Any) -> None:
        """A module was compiled in place; wrap its call where it is ours."""
        for member in self._members:
            if member.module() is module:
                member.wrap_compiled(module)

    def remove(self) -> None:
        """Take all hooks off."""
        for member in self._members:
            member.remove()
        self._members = []

    def driven_by(self, optimizer: Any) -> bool:
        """Whether an optimizer changes this model; where a model has no parameters every optimizer does."""
        if self.optimizers:
            return any(each() is optimizer for each in self.optimizers)
        known = self._driven.get(id(optimizer))
        if known is None:
            mine = {id(each) for module in self.modules for each in module.parameters()}
            its = {id(each) for group in optimizer.param_groups for each in group["params"]}
            known = self._driven[id(optimizer)] = not mine or bool(mine & its)
        return known

    def enter(self, module: Any) -> None:
        """A member is being called."""
        if getattr(self._local, "outer", None) is None:
            self._local.outer = id(module)

    def leave(self, module: Any, output: Any) -> None:
        """A member has returned; ``output`` is None where it raised."""
        if getattr(self._local, "outer", None) == id(module):
            self._local.outer = None
            if output is not None:
                guarded(self._on_forward, self, module, output)


class _Member:
    """The hooks on one module."""

    def __init__(self, module: Any, family: Family) -> None:
        self.module = weakref.ref(module)
        self.family = family
        self._handles = [
            module.register_forward_pre_hook(_Before(self)),
            module.register_forward_hook(_After(self), always_call=True),
        ]
        self._original: Any = None
        self.wrap_compiled(module)

    def wrap_compiled(self, module: Any) -> None:
        call = module.__dict__.get("_compiled_call_impl")
        if call is None or isinstance(call, _CompiledCall):
            return
        self._original = call
        module.__dict__["_compiled_call_impl"] = _CompiledCall(self, call)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        module = self.module()
        if module is not None and isinstance(module.__dict__.get("_compiled_call_impl"), _CompiledCall):
            module.__dict__["_compiled_call_impl"] = self._original


class _Hook:
    """A hook that may be pickled and copied with the module it sits on."""

    def __init__(self, member: _Member) -> None:
        self.member = member

    def __reduce__(self) -> Any:
        # takes any arguments, gives None, and is there in every Python: whoever loads the model needs no losslog
        return getattr, (contextlib.nullcontext(), "__exit__")

    def __deepcopy__(self, memo: Any) -> _Hook:
        return self


class _Before(_Hook):
    def __call__(self, module: Any, args: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if self.member.module() is module:
            self.member.family.enter(module)


class _After(_Hook):
    def __call__(self, module: Any, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if self.member.module() is module:
            self.member.family.leave(module, output)


class _CompiledCall:
    """Stands before a module's compiled call; torch drops it when the module is pickled or copied."""

    def __init__(self, member: _Member, call: Callable[..., Any]) -> None:
        self._member, self._call = member, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = self._member.module()
        family = self._member.family
        family.enter(module)
        output = None
        try:
            output = self._call(*args, **kwargs)
        finally:
            family.leave(module, output)
        return output


class Discovery:
    """Looks at every outermost module call until somebody has seen enough.

    Args:
        on_found: called with (module, output) after each outermost call while `looking`.
    """

    def __init__(self, on_found: Callable[[Any, Any], None]) -> None:
        self._on_found = on_found
        self._local = threading.local()
        self._handles: list[Any] = []

    @property
    def looking(self) -> bool:
        """Whether the hooks on all modules are in place."""
        return bool(self._handles)

    def start(self) -> None:
        """Hook every module."""
        if self._handles:
            return
        from torch.nn.modules import module as modules

        # torch warns that such hooks fire twice for compiled modules: they do, and ours count the outermost call only
        warnings.filterwarnings("ignore", message=COMPILED_NOTE, category=UserWarning)
        self._local = threading.local()
        self._handles = [
            modules.register_module_forward_pre_hook(self._before),
            modules.register_module_forward_hook(self._after, always_call=True),
        ]

    def stop(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before(self, module: Any, args: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if getattr(self._local, "outer", None) is None:
            self._local.outer = id(module)

    def _after(self, module: Any, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if getattr(self._local, "outer", None) == id(module):
            self._local.outer = None
            if output is not None:
                guarded(self._on_found, module, output)


def compiled_around(model: Any) -> list[Any]:
    """The wrappers that ``torch.compile`` has made of a model so far; calling them does not call the model's hooks."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    kind = getattr(dynamo, "OptimizedModule", None)
    if kind is None:
        return []
    return [each for each in gc.get_objects() if type(each) is kind and each._orig_mod is model]
