"""Functions of torch and others that are replaced by ones that also speak.

The functions run on the threads that call them. Contract:

- The original is called with its own arguments, and its result or exception is what the caller gets.
- This module imports none of those it speaks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from losslog.instrument.datapass import Pass
from losslog.instrument.listeners import armed, guarded, listeners, tell
from losslog.instrument.roots import hear_backward, hear_scale
from losslog.runtime.containment import attempt
from losslog.runtime.endings import leaves

LATE: Final = "torch.serialization"  # worth replacing only while it is imported: ``torch.save`` is bound then
MARK: Final = "_losslog_pass"


def _iterate(original: Any) -> Any:
    def __iter__(self: Any) -> Any:
        iterator = original(self)
        if listeners:
            attempt(lambda: setattr(iterator, MARK, Pass(self, iterator)))
        return iterator

    return __iter__


def _next(original: Any) -> Any:
    def __next__(self: Any) -> Any:
        found = self.__dict__.get(MARK)
        try:
            batch = original(self)
        except StopIteration:
            if found is not None:
                guarded(found.ends, self)
            raise
        if found is not None:
            found.gives(batch)
            for listener in listeners:
                guarded(listener.yielded, found)
        return batch

    return __next__


def _train(original: Any) -> Any:
    def train(self: Any, mode: bool = True) -> Any:
        was_training = self.__dict__.get("training", True)
        result = original(self, mode)
        if mode and listeners:
            tell("train_called", self, was_training=was_training)
        return result

    return train


def _wrap_compiled(original: Any) -> Any:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        tell("compiled", self)

    return __init__


def _zero_grad(original: Any) -> Any:
    def zero_grad(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if not (unit := armed[:1]) or unit[0].stage > 1:  # before a backward pass nothing is lost by it
            tell("zeroed", self)
        return result

    return zero_grad


def _restore(original: Any) -> Any:
    def load_state_dict(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        tell("restored", self)
        return result

    return load_state_dict


def _make(original: Any) -> Any:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        tell("made", self)

    return __init__


def _step(original: Any) -> Any:
    """Of optimizers that are not torch's."""

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        tell("step_begins", self)
        result = original(self, *args, **kwargs)
        tell("step_ends", self)
        return result

    return step


def _scaler_step(original: Any) -> Any:
    def step(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        tell("scaler_begins", optimizer)
        result = original(self, optimizer, *args, **kwargs)
        tell("scaler_ends", optimizer, self)
        return result

    return step


def _summarize(original: Any) -> Any:
    def summarize(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        tell("summarized", self)
        return result

    return summarize


def _save(original: Any) -> Any:
    def save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(obj, f, *args, **kwargs)
        tell("saved", obj, f)
        return result

    return save


def _load(original: Any) -> Any:
    def load(f: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(f, *args, **kwargs)
        tell("loaded", f, result)
        return result

    return load


def _leave(original: Any) -> Any:
    def exit(status: Any = None, /) -> Any:
        guarded(leaves, status)
        return original(status)

    return exit


# module: (class or "", attribute, what replaces it)
SITES: Final[dict[str, tuple[tuple[str, str, Callable[[Any], Any]], ...]]] = {
    "sys": (("", "exit", _leave),),
    "torch.autograd": (("", "backward", hear_backward),),
    "torch.nn.modules.module": (("Module", "train", _train), ("Module", "zero_grad", _zero_grad)),
    "torch.optim.optimizer": (
        ("Optimizer", "zero_grad", _zero_grad),
        ("Optimizer", "__init__", _make),
        ("Optimizer", "load_state_dict", _restore),
    ),
    "torch.utils.data.dataloader": (("DataLoader", "__iter__", _iterate), ("_BaseDataLoaderIter", "__next__", _next)),
    "torch.amp.grad_scaler": (("GradScaler", "step", _scaler_step), ("GradScaler", "scale", hear_scale)),
    "torch._dynamo.eval_frame": (("OptimizedModule", "__init__", _wrap_compiled),),
    "torch.serialization": (("", "save", _save), ("", "load", _load)),
    "pycocotools.cocoeval": (("COCOeval", "summarize", _summarize),),
    "faster_coco_eval.core.cocoeval": (("COCOeval", "summarize", _summarize),),  # COCOeval_faster calls it
    "keras.src.optimizers.base_optimizer": (("BaseOptimizer", "apply", _step),),
    "fastai.optimizer": (("Optimizer", "step", _step), ("Optimizer", "zero_grad", _zero_grad)),
}
