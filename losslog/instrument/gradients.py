"""Gradients, updates and standing still by part of a model, measured at one step an epoch.

On the thread that trains. Contract:

- No value is read back: what is measured stays on its device until a record wants it.
- Only parameters that an optimizer moves are measured; of each at most 64 values, spread over it, are kept for
  comparison. A part without any gradient has no norm: only whether it is unchanged.
- Unchanged is what stands where a step left it an epoch ago, and what stood at three visits where it did before a step
  that moved it: it was written back, at whatever point of the loop. A single value may only be clamped, and one return
  may be a search's.
- Nothing is put on parameters, and none is changed. An optimizer has a hook from `begin` to its step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from losslog.instrument.parts import Parts
from losslog.runtime.containment import attempt

SAMPLE: Final = 64


class Gradients:
    """Measures one model's parts.

    A visit is `begin` before a step of an optimizer and `end` after it, while the gradients are still there.
    """

    def __init__(self) -> None:
        self._kept: dict[int, list[list[Tensor]]] = {}  # by optimizer, samples after the last step that was measured,
        # before it, and before the one that was measured then
        self._ids: dict[int, tuple[int, ...]] = {}
        self._open: dict[int, tuple[Parts, dict[int, Tensor]]] = {}  # samples before the step, by parameter
        self._hooks: list[Any] = []  # of optimizers that are about to step

    def begin(self, parts: Parts, optimizers: Iterable[Any]) -> None:
        """The coming step of these optimizers is measured."""
        self._open = {}
        self.close()
        for optimizer in optimizers:
            if not hasattr(optimizer, "param_groups"):  # keras': it tells nobody when it steps
                continue
            moved = {id(each) for group in optimizer.param_groups if group.get("lr") for each in group["params"]}
            members = [(part, each) for part, each in parts.parameters() if id(each) in moved and _plain(each)]
            if members:
                samples = _samples(each for _, each in members)
                self._open[id(optimizer)] = parts, dict(zip([id(each) for _, each in members], samples, strict=True))
                if hasattr(optimizer, "register_step_pre_hook"):
                    self._hooks.append(optimizer.register_step_pre_hook(self._steps))

    def close(self) -> None:
        """Leave the optimizers as they were."""
        for each in self._hooks:
            each.remove()
        self._hooks = []

    @property
    def measuring(self) -> bool:
        """Whether a step is waited for."""
        return bool(self._open)

    def _steps(self, optimizer: Any, *_: Any) -> None:
        attempt(self._sample, optimizer)  # else those of `begin` have to do

    def _sample(self, optimizer: Any) -> None:
        """An optimizer begins its step: what was written since `begin` is not its doing."""
        if id(optimizer) in self._open:
            parts, samples = self._open[id(optimizer)]
            members = [each for _, each in parts.parameters() if id(each) in samples]
            self._open[id(optimizer)] = parts, dict(zip(map(id, members), _samples(members), strict=True))

    def end(self, optimizer: Any) -> dict[str, Any]:
        """What the step of an optimizer was like: ``grad_norm/<part>`` and the like; empty where nothing was begun.

        Args:
            optimizer: It has stepped.
        """
        if id(optimizer) not in self._open:
            return {}
        parts, samples = self._open.pop(id(optimizer))
        if not self._open:
            self.close()
        members = [(part, each) for part, each in parts.parameters() if id(each) in samples]
        before = [samples[id(each)] for _, each in members]
        found: dict[str, Any] = {}
        now = list(_samples(each for _, each in members))
        ids, kept = tuple(id(each) for _, each in members), self._kept.get(id(optimizer))
        earlier = kept if self._ids.get(id(optimizer)) == ids else None
        by_part: dict[str, list[int]] = {}
        bare: dict[str, list[int]] = {}
        for index, (part, each) in enumerate(members):
            if each.grad is None:
                bare.setdefault(part, []).append(index)
            elif not each.grad.is_sparse:
                by_part.setdefault(part, []).append(index)
        if earlier is not None:
            for part, places in bare.items():
                if part not in by_part:  # none of it had a gradient
                    found[f"unchanged/{part}"] = _unchanged(earlier, before, now, places)
        for part, places in by_part.items():
            gradients = [members[place][1].grad for place in places]
            found[f"grad_norm/{part}"] = nn.utils.get_total_norm([each for each in gradients if each is not None])
            old = torch.cat([before[place] for place in places])
            moved = torch.cat([now[place] for place in places]) - old
            weight = torch.linalg.vector_norm(old)
            ratio = torch.linalg.vector_norm(moved) / weight
            found[f"update_ratio/{part}"] = torch.where(weight > 0, ratio, torch.zeros_like(ratio))
            if earlier is not None:
                found[f"unchanged/{part}"] = _unchanged(earlier, before, now, places)
        if now:
            self._kept[id(optimizer)] = [now, before, *(earlier[1:2] if earlier is not None else ())]
            self._ids[id(optimizer)] = ids
        return found


def _unchanged(earlier: list[list[Tensor]], before: list[Tensor], now: list[Tensor], places: list[int]) -> Tensor:
    """The share of tensors that are what they were."""
    same = []
    for place in places:
        stands = (earlier[0][place] == now[place]).all()
        if len(earlier) > 2 and now[place].numel() > 1:
            after, was, first = (each[place] for each in earlier)
            stands = stands | ((first == was) & (was == before[place])).all() & (after != was).any()
        same.append(stands)
    return torch.stack(same).float().mean()


def _plain(parameter: Any) -> bool:
    """Whether a parameter is whole here: no shard, no quantised or sparse one."""
    return (
        parameter.requires_grad
        and parameter.numel() > 0
        and parameter.layout == torch.strided
        and not hasattr(parameter, "to_local")
        and not parameter.is_meta
        and parameter.is_floating_point()
    )


def _samples(parameters: Iterable[nn.Parameter]) -> Iterator[Tensor]:
    """A few values of each, as float32 copies."""
    with torch.no_grad():
        for each in parameters:
            flat = each.detach()
            count = min(SAMPLE, flat.numel())
            if flat.is_contiguous():
                flat = flat.view(-1)[:: max(1, flat.numel() // count)][:count]
            else:
                flat = flat.flatten()[:: max(1, flat.numel() // count)][:count]
            yield flat.to(torch.float32, copy=True)
