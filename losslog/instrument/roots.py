"""The roots of backward passes: what was optimised, told by autograd itself.

The thread that calls backward; prehooks run on autograd's threads. Contract:

- The original is called with its own arguments; what it gives or raises is the caller's.
- A root's value is read when backward is called, and stays on its device. No graph and no tensor of the user's is kept.
- A backward inside another (reentrant checkpointing) is part of it. While torch compiles, transforms or captures a
  CUDA graph nothing is heard.
- A tensor is known by its mark: its node's number and its place among the node's outputs.
"""

from __future__ import annotations

import functools
import operator
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from losslog.instrument.listeners import armed, failed, guarded, hearing, listeners, meter, tell, unusual, usually
from losslog.runtime.containment import attempt

Mark = tuple[int, int]
unscaled: Final[deque[Any]] = deque(maxlen=4)
"""Losses that GradScalers scaled last, as they were before."""
_usual_begins, _usual_ends = operator.attrgetter("begins"), operator.attrgetter("ends")
_open: Final[list[Root]] = []  # backward passes that run now, of all threads


class Root:
    """One heard call of ``torch.autograd.backward``.

    Attributes:
        thread: that called it.
        value: the sum of what was differentiated: a float, or a tensor on its device.
        marks: of the tensors it was called with.
        scale: of the GradScaler that scaled them, a float or a tensor; 1.0 without.
        reached: (output, index of the loss in it, gradient) of each loss that it came through.
        tensors: what it was called with, while listeners are told that it begins.
        node: of the one tensor it was called with, while it runs; None of several.
        lone: what `losslog.instrument.behind.lone` says of that, where an output asked.
        fed: whose optimizers it gave gradients.
        once: whether its graph is done with afterwards, and all of it is gone through.
        kept: whether its graph is there afterwards.
    """

    scale: Any = 1.0
    tensors: Sequence[Any] = ()
    node: Any = None
    lone: dict[int, bool] | None = None
    fed: tuple[Any, ...] = ()
    once = kept = False

    def __init__(self, thread: int, value: Any, marks: list[Mark]) -> None:
        self.thread, self.value, self.marks = thread, value, marks
        self.reached: list[tuple[Any, int, Any]] = []  # of a `losslog.instrument.outputs.Output`


def running(thread: int | None = None) -> Root | None:
    """The backward pass that a thread has called and that runs now."""
    if len(_open) == 1 and (thread is None or _open[0].thread == thread):
        return _open[0]
    thread = threading.get_ident() if thread is None else thread
    return next((each for each in reversed(_open) if each.thread == thread), None)


def elsewhere() -> bool:
    """Whether a backward pass of another thread runs now."""
    here = threading.get_ident()
    return any(each.thread != here for each in _open)


def mark_of(tensor: Any, node: Any = None) -> Mark:
    """How a tensor is known to a root; ``node`` is its ``grad_fn``."""
    return (node or tensor.grad_fn)._sequence_nr(), tensor.output_nr


def number(tensor: Any) -> Any:
    """A gradient, scale or loss as it is now: a float, or a copy on its device."""
    local = getattr(tensor, "to_local", None)
    tensor = local() if local is not None else tensor
    tensor = tensor if tensor.dim() == 0 else tensor.detach().sum()
    return float(tensor.tolist()) if tensor.is_cpu else tensor.detach().clone()


def hear_backward(original: Callable[..., Any]) -> Callable[..., Any]:
    """What replaces ``torch.autograd.backward``."""

    def backward(*args: Any, **kwargs: Any) -> Any:
        torch = sys.modules["torch"]
        if not listeners or torch.compiler.is_compiling() or torch._C._current_graph_task_id() != -1:  # recomputation
            return original(*args, **kwargs)
        if armed and len(args) == 4 and args[1] is args[2] is None is kwargs.get("inputs") and args[3] is False:
            unit = usually(_usual_begins, args[0])
            if unit is not None:
                return _usual(unit, original, args, kwargs)
        unusual()
        entered = meter.enters() if meter.owner is not None else 0.0
        root, error = attempt(_begins, *args, **kwargs)
        if entered:
            meter.leaves(entered)
        if error is not None and not isinstance(error, RuntimeError):  # which is of tensors that have no value
            failed(error)
        if root is None:
            return original(*args, **kwargs)
        try:
            result = original(*args, **kwargs)
        finally:
            _open.remove(root)
            root.node = None
        tell("backward_ends", root)
        return result

    return backward


def _usual(unit: Any, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A backward pass that a unit has taken, and may hand back while it runs."""
    ended = None
    try:
        result = original(*args, **kwargs)
        ended = usually(_usual_ends) if armed else None
    finally:
        if ended is None:
            unusual()
            root, unit.root = unit.root, None
            if root in _open:
                _open.remove(root)
                root.node = None
    if ended is None and root is not None:
        tell("backward_ends", root)
    return result


def begun(root: Root) -> Root:
    """A backward pass that a unit has taken is the listeners' now."""
    _open.append(root)
    return root


def _begins(
    tensors: Any, grad_tensors: Any = None, retain_graph: Any = None, create_graph: Any = False, *args: Any,
    inputs: Any = None, **kwargs: Any,
) -> Root | None:  # fmt: skip
    torch = sys.modules["torch"]
    core = torch._C  # a function transform (vmap, grad) or a tracer: its tensors are not the loop's
    if core._functorch.maybe_current_level() is not None or core._is_tracing():
        return None
    if type(tensors) is torch.Tensor and grad_tensors is None and tensors.is_cpu and not tensors.dim():
        node = tensors.grad_fn
        marks = [] if node is None else [(node._sequence_nr(), tensors.output_nr)]
        root = Root(threading.get_ident(), float(tensors.tolist()), marks)
        root.node = node
        root.kept = bool(retain_graph or create_graph)
        root.once = not (root.kept or args) and inputs is None
    else:
        several = [tensors] if isinstance(tensors, torch.Tensor) else tensors
        if not isinstance(several, list | tuple):
            return None
        value, marks = _sum(several, grad_tensors if grad_tensors is not None else kwargs.get("grad_variables"))
        root = Root(threading.get_ident(), value, marks)
        root.node = several[0].grad_fn if len(several) == 1 else None
    root.tensors = [tensors] if isinstance(tensors, torch.Tensor) else tensors
    try:
        for begins in hearing("backward_begins"):
            begins(root)
    finally:
        root.tensors = ()
    _open.append(root)
    return root


def _sum(tensors: Sequence[Any], gradients: Any) -> tuple[Any, list[Mark]]:
    """What tensors add up to, each with the weights that backward was given for it, and their marks."""
    torch = sys.modules["torch"]
    weights = gradients if isinstance(gradients, list | tuple) else [gradients] * len(tensors)
    value: Any = 0.0
    marks = []
    for tensor, weight in zip(tensors, weights, strict=True):
        if not isinstance(tensor, torch.Tensor):  # an edge of a graph has no value
            raise RuntimeError("no tensor")
        if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("capturing")
        found = number(tensor if weight is None else tensor.detach() * weight)
        value = found if len(tensors) == 1 else value + found
        if tensor.grad_fn is not None:
            marks.append(mark_of(tensor))
    return value, marks


def hear_scale(original: Callable[..., Any]) -> Callable[..., Any]:
    """What replaces ``GradScaler.scale``."""

    def scale(self: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, outputs, *args, **kwargs)
        if result is not outputs and listeners:
            unusual()
            if hasattr(outputs, "grad_fn") and outputs.numel() == 1:
                unscaled.append(outputs.detach())
            guarded(
                _scaled, self, result if isinstance(result, Iterable) and not hasattr(result, "grad_fn") else [result]
            )
        return result

    return scale


def _scaled(scaler: Any, results: Iterable[Any]) -> None:
    factor = number(scaler._scale)
    for each in results:
        if each.grad_fn is not None:
            each.grad_fn.register_prehook(functools.partial(_scale_reached, threading.get_ident(), factor))


def _scale_reached(thread: int, factor: Any, gradients: Any) -> None:
    root = running(thread)
    if root is not None:
        root.scale = factor
