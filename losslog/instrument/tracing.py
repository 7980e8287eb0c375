"""Where a loss that is not finite comes from: the batch is computed once more, and the first such output is named.

On the thread that trains, between a forward pass and its backward. Contract:

- The weights are those of the step, and random numbers the same. What the repetition changes is put back: random state
  and buffers; it has no graph and no backward, so that gradients stay as they were.
- Hooks are on the modules while it runs, and at no other time. A repetition that fails is said, and training goes on.
- Whether losses are finite is read at each step: that waits for the device.
- Nothing is repeated where other processes would have to compute too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from losslog.instrument.finite import first_bad
from losslog.instrument.parts import is_sharded
from losslog.instrument.rng import preserved_rng, rng_state, set_rng_state
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import say
from losslog.values.targets import Targets

if TYPE_CHECKING:
    from losslog import Run

MOST: Final = 3
"""Repetitions in a run; the next one only after a batch that was finite."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value that is not finite was seen first.

    Attributes:
        text: In words.
        evidence: As plain data; ``module`` and ``kind`` where it is a module.
    """

    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Traces:
    """What was found in one training, until it is told.

    Attributes:
        left: Repetitions that may still be made.
        bad: Whether the last losses were not finite.
    """

    def __init__(self) -> None:
        self.left, self.bad = MOST, False
        self._untold: list[tuple[str, Origin, Any]] = []

    def judge(self, losses: Mapping[str, Tensor], find: Callable[[], Origin], targets: Any) -> None:
        """A batch has given losses: find where the first of them that is not finite comes from.

        Args:
            losses: By name.
            find: Computes it once more.
            targets: Dicts with ids and boxes of its images, or nothing.
        """
        if not self.left:
            return
        bad = [name for name, each in losses.items() if not torch.isfinite(each.detach()).all()]
        again, self.bad = self.bad, bool(bad)
        if not bad or again:
            return
        self.left -= 1
        found, error = attempt(find)
        if error is not None:
            say("the batch of a loss that is not finite could not be computed once more: %s", one_line(error))
        if found is not None:
            kept = Targets()
            kept.keep(0, targets)
            self._untold.append((bad[0], found, kept))

    @property
    def waiting(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._untold)

    def tell(self, run: Run | None) -> None:
        """Say what was found; once the step's losses are logged, so that it stands at that step."""
        untold, self._untold = self._untold, []
        for component, origin, kept in untold:
            text = " ".join(filter(None, [origin.text, kept.describe(0)]))
            if run is None:
                say("%s is not finite. %s", component, text)
                continue
            evidence = {**origin.evidence, "images": kept.images(0)}
            where = origin.evidence.get("module") or origin.evidence["what"]
            run.alert(f"{component} is not finite: {where}", text, "error", key=f"trace/{where}", component=component,
                      cause="not_finite_in", evidence=evidence, source="losslog")  # fmt: skip


class Tracer(Traces):
    """Traces for one training.

    Args:
        model: That is trained, not wrapped.
        forward: Computes losses from ``(model, batch)``, in the precision of training.
    """

    def __init__(self, model: nn.Module, forward: Callable[[nn.Module, Any], Any]) -> None:
        super().__init__()
        self._model, self._forward = getattr(model, "_orig_mod", model), forward
        self._state: dict[str, Any] = {}

    def before(self) -> None:
        """A batch is going to be computed."""
        if self.left:
            self._state = rng_state()

    def after(self, losses: Mapping[str, Tensor] | Tensor, batch: Any, targets: Any) -> None:
        """It was.

        Args:
            losses: What came of it.
            batch: On its device.
            targets: Dicts with ids and boxes of its images, or nothing.
        """

        def find() -> Origin:
            call = Call(self._model, batch, self._state, lambda: self._forward(self._model, batch))
            return origin_in([call])

        self.judge(losses if isinstance(losses, Mapping) else {"loss": losses}, find, targets)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that can be made once more.

    Attributes:
        module: What was called, not wrapped.
        given: What it was called with.
        state: Of `rng_state`, before it.
        again: Makes it.
    """

    module: nn.Module
    given: Any
    state: dict[str, Any]
    again: Callable[[], Any]


def origin_in(calls: Sequence[Call]) -> Origin:
    """Make calls once more, in order, and tell where a value that is not finite is seen first.

    Args:
        calls: Of one batch: a model's, then perhaps of criteria on what it gave.
    """
    models = list({id(each.module): each.module for each in calls}.values())
    if is_sharded(models) or any(isinstance(each, nn.SyncBatchNorm) for model in models for each in model.modules()):
        return Origin(
            "The batch was not computed once more: other processes would have to take part.",
            {"what": "not repeated"},
        )
    for model in models:
        for name, parameter in model.named_parameters():
            if not torch.isfinite(parameter.detach()).all():
                return Origin(
                    f"The parameter {name} was not finite before this step: look at the steps before.",
                    {"what": "parameter", "module": name},
                )
    watch, given = _Watch(models), None
    with contextlib.ExitStack() as stack:
        for each in models:
            stack.enter_context(_as_it_was(each))
        for context in (preserved_rng(), torch.no_grad(), _eagerly(), watch):
            stack.enter_context(context)
        for place, call in enumerate(calls):
            what = "the model" if not place else type(call.module).__name__
            wrong = first_bad(call.given, "the batch" if not place else "its input", data=place > 0)
            if wrong is not None:
                given = Origin(f"What {what} is given is not finite: {wrong[0]}.", {"what": "batch", "where": wrong[0]})
                break
            set_rng_state(call.state)
            losses = call.again()
            if watch.found is not None:
                break
    return watch.found or given or watch.infinite or _elsewhere(losses)


def _elsewhere(losses: Any) -> Origin:
    if first_bad(losses, "") is None:
        return Origin(
            "Computed once more, the same batch gave finite losses: what made the difference is neither in the weights "
            "nor in torch's random numbers.",
            {"what": "finite when repeated"},
        )
    return Origin(
        "Every module's output was finite: it arises where the loss is computed of them.", {"what": "the loss itself"}
    )


class _Watch:
    """Hooks on all modules of models, while entered.

    Attributes:
        found: the first output with a NaN or a positive infinity in it.
        infinite: the first one with a negative infinity, which may be meant: a mask.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self._models = models
        self._handles: list[Any] = []
        self._before = ""
        self.found: Origin | None = None
        self.infinite: Origin | None = None

    def __enter__(self) -> None:
        for place, model in enumerate(self._models):
            for name, module in model.named_modules(prefix=type(model).__name__ if place else ""):
                self._handles.append(module.register_forward_hook(self._hook(name), with_kwargs=True))

    def __exit__(self, *_: object) -> None:
        for each in self._handles:
            each.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if self.found is None:
                attempt(self._look, name, module, (args, kwargs), output)

        return hook

    def _look(self, name: str, module: nn.Module, given: Any, output: Any) -> None:
        wrong = first_bad(output, "")
        kind = type(module).__name__
        label = f"{name or 'the model'} ({kind})"
        if wrong is None:
            self._before = label
            return
        where, tensor = wrong
        masked = not (torch.isnan(tensor) | torch.isposinf(tensor)).any()
        if masked and self.infinite is not None:
            return
        nan, share = bool(torch.isnan(tensor).any()), 1 - torch.isfinite(tensor).float().mean().item()
        part = f" ({where.lstrip('.')})" if where else ""
        words = f"The first output that is not finite is that of {label}{part}: {'NaN' if nan else 'infinite'} in "
        words += "all of it." if share == 1 else f"{100 * share:.2g} % of it."
        into = first_bad(given, "")
        if into is None:
            words += " What goes into it is finite, and so are all parameters."
        else:
            after = f" after {self._before}" if self._before else ""
            words += f" What goes into it is not: it arises between modules{after}."
        if tensor.dtype == torch.float16:
            words += " It is float16, which ends at 65504: try bfloat16, or compute that module in float32."
        evidence = {
            "what": "output", "module": name, "kind": kind, "nan": nan, "share": share, "inputs_finite": into is None,
            "dtype": str(tensor.dtype),
        }  # fmt: skip
        origin = Origin(words, evidence)
        if masked:
            self.infinite = origin
        else:
            self.found = origin


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Puts buffers back, without a graph that holds them noticing."""
    buffers = [(each, each.detach().clone()) for each in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in buffers:
            buffer.data.copy_(value)


def _eagerly() -> contextlib.AbstractContextManager[Any]:
    """Compiled modules run as they were written, so that hooks in them are called."""
    stance = getattr(torch.compiler, "set_stance", None)
    return contextlib.nullcontext() if stance is None else stance("force_eager")
