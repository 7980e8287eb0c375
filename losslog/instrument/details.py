"""Parts of a loss that come beside it without a graph: ``return total, {"box": box.detach(), "cls": cls.detach()}``.

Training thread. Contract:

- Parts that add up to the loss, or to a whole part or multiple of it (the size of the batch), are its components, with
  that weight. Else they are metrics; without names of their own they are nothing.
- That is decided on the first call. On a device it is asked once.
- What is named as a metric is one. What is the loss itself is no part of it, where there are others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from losslog.instrument.fields import fields_of
from losslog.instrument.outputs import Loss, Output, of, read
from losslog.values.totals import TOTAL_NAMES, sounds_like_a_metric

if TYPE_CHECKING:
    from losslog.instrument.family import Family

SAME: Final = 1e-5  # relative; sums of float32 differ by less
LARGEST: Final = 1024  # factor that is told from any number
MOST: Final = 16  # parts in a tensor


def beside(output: Any, loss: Loss, family: Family) -> list[Loss]:
    """The parts beside a loss in a tuple.

    Args:
        output: what a module returned.
        loss: the one loss in it.
        family: whose.
    """
    if family.details == () and not family.describes:
        return []
    found: list[Loss] = []
    for place, each in enumerate(output):
        if place == loss.place:
            continue
        if (fields := fields_of(each)) is not None:
            plain = {key: torch.tensor(value) if type(value) is float else value for key, value in fields.items()}
            found += [its for its in read(plain, "") if its.node is None and its.name not in TOTAL_NAMES]
            family.describes = family.describes or bool(found)
        elif _is_vector(each) and not family.parameters():
            found += [Loss(f"{family.name}[{index}]", its, True) for index, its in enumerate(each.unbind())]
    return found if len({its.name for its in found}) == len(found) else []


def described(output: Any, loss: Loss, family: Family) -> Output | None:
    """The parts beside a loss that has gradients, with how often they count in it."""
    parts = beside(output, loss, family)
    if not parts:
        return None
    if family.details is None:
        family.details = _components(loss, parts)
    if not family.describes:
        parts = [each for each in parts if each.name in family.details]
        if not parts:
            return None
    found = of(family, parts)
    found.factor = _factor(loss, [each for each in parts if each.name in family.details])
    return found


def evaluated(output: Any, losses: list[Loss], family: Family | None) -> list[Loss]:
    """What a call without gradients gave: the parts of its one loss as in training, and that as their total."""
    if family is None or not family.details or len(losses) != 1 or losses[0].place is None or losses[0].named:
        return losses
    parts = [each for each in beside(output, losses[0], family) if each.name in family.details]
    if len(parts) < len(family.details):
        return losses
    total = Loss(TOTAL_NAMES[-1], losses[0].tensor, True, losses[0].place)
    return [*parts, total]


def _is_vector(value: Any) -> bool:
    if not isinstance(value, torch.Tensor) or value.requires_grad or value.is_meta or not value.is_floating_point():
        return False
    return value.dim() == 1 and 1 < value.numel() <= MOST


def _components(loss: Loss, parts: list[Loss]) -> tuple[str, ...]:
    """Names of those that the loss is made of."""
    total = _value(loss)
    values = {each.name: _value(each) for each in parts if not sounds_like_a_metric(each.name)}
    others = {name: value for name, value in values.items() if abs(value - total) > SAME * abs(total)}
    for several in (others, values):
        whole = sum(several.values())
        if whole and _is_whole(total / whole):
            return tuple(several)
    return ()


def _is_whole(ratio: float) -> bool:
    """Whether a factor, or what it divides by, is a whole number."""
    ratio = 1.0 / ratio if 0.0 < ratio < 1.0 else ratio
    return 0.0 < ratio <= LARGEST and abs(ratio - round(ratio)) <= SAME * ratio


def _value(loss: Loss) -> float:
    return float(loss.tensor.detach())


def _factor(loss: Loss, parts: list[Loss]) -> Any:
    """How often parts count in a loss: a number, or on a device a tensor; 0.0 where there are none."""
    if not parts:
        return 0.0
    if all(each.tensor.is_cpu for each in (loss, *parts)):
        whole = sum(_value(each) for each in parts)
        ratio = _value(loss) / whole if whole else 1.0
        if 0.0 < ratio < 1.0:
            return 1.0 / round(1.0 / ratio)
        return float(round(ratio)) if 1.0 <= ratio <= LARGEST else 1.0
    added = torch.stack([each.tensor.detach().to(loss.tensor).reshape(()) for each in parts]).sum()
    one = torch.ones_like(added)
    times = torch.where(added == 0, one, loss.tensor.detach().reshape(()) / torch.where(added == 0, one, added))
    return torch.where(times < 1, 1 / (1 / times).round(), times.round())
