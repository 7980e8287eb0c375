"""Where a loss that is not finite comes from, in a loop that is seen from outside: its calls are made once more.

On the thread that trains. Contract:

- What the loop calls with gradients is kept until it calls something after its backward pass, or fetches a new batch:
  the arguments, with the random state and the precision they were computed in.
- It looks when a module has given losses, and when a backward pass begins: a loss of the loop's own arithmetic is seen
  there. What a GradScaler made infinite is not looked at: the loss before it is.
- A wrapper that talks to other processes is left out: what it wraps is called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from losslog.instrument import calls
from losslog.instrument.rng import rng_state
from losslog.instrument.roots import Root, unscaled
from losslog.instrument.tracing import Call, Origin, Traces, origin_in

MOST: Final = 32
"""Calls of one batch that are kept: a loop without a data loader, which never calls backward, holds no more."""


class Retracer(Traces):
    """Traces for one observer."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[Call] = []
        self._looked = self._spent = False
        calls.precede(self.calling)

    def calling(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A module is going to be called from outside."""
        if not self.left or not torch.is_grad_enabled() or torch._C._current_graph_task_id() != -1:
            return  # it is a recomputation inside a backward pass
        if self._spent:
            self.over()
        if len(self._calls) >= MOST:
            return
        bare, contexts = _bare(module), _precision()
        given: Any = (*args, kwargs) if kwargs else args

        def again() -> Any:
            with contextlib.ExitStack() as stack:
                for each in contexts:
                    stack.enter_context(each())
                stack.enter_context(calls.hidden())
                return bare(*args, **kwargs)

        self._calls.append(Call(bare, given, rng_state(), again))

    def gave(self, names: Sequence[str], tensors: Iterable[Tensor], targets: Any) -> None:
        """Losses were given.

        Args:
            names: Theirs.
            tensors: Their values.
            targets: Of the batch they are of.
        """
        if self._calls and not self._looked:
            self.judge(dict(zip(names, tensors, strict=False)), self._find, targets)
            self._looked = self.bad

    def heard(self, root: Root, targets: Any) -> None:
        """A backward pass begins."""
        if self._calls and not self._looked:
            values = [*unscaled] or [*root.tensors]
            worst = next((each for each in values if not torch.isfinite(each.detach()).all()), values[0])
            self.judge({"loss": worst}, self._find_outside, targets)
        unscaled.clear()
        self._spent = True

    def over(self) -> None:
        """The batch is done with."""
        self._calls, self._looked, self._spent = [], False, False

    def close(self) -> None:
        """Hear no more calls."""
        calls.unprecede(self.calling)
        self.over()

    def _find(self) -> Origin:
        return origin_in(self._calls)

    def _find_outside(self) -> Origin:
        """Of a loss that no module gave."""
        found = origin_in(self._calls)
        if found.evidence["what"] != "finite when repeated":
            return found
        return Origin(
            "Every module's output was finite: it arises where the loop itself computes the loss of them, or its "
            "targets are not finite.",
            {"what": "the loop's own arithmetic"},
        )


def _bare(module: nn.Module) -> nn.Module:
    """What a wrapper wraps that would wait for other processes, or would compile."""
    found: Any = module
    if type(found).__name__ == "DistributedDataParallel":
        found = found.module
    found = getattr(found, "_orig_mod", found)
    assert isinstance(found, nn.Module)
    return found


def _precision() -> list[Callable[[], Any]]:
    """Contexts of mixed precision as it is now; without its cache, which would keep weights that have no graph."""
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_initialized() else [])]  # type: ignore[no-untyped-call]
    return [_context(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds]


def _context(kind: str, enabled: bool, dtype: torch.dtype) -> Callable[[], Any]:
    return lambda: torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False)
