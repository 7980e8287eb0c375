"""Training on one and the same batch (a graph): validation is on other rows of it, which a mask or the targets tell.

Training thread. Contract:

- What models and criteria were given in the last step beside their outputs is held, while all steps are on one batch.
- A call is of other data where any of that is another tensor with other values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch

from losslog.runtime.containment import attempt

MOST: Final = 16  # calls of a step that are known again


class FullBatch:
    """What the last step was made with, for one observer.

    Attributes:
        trained: of each call of a model or a criterion what it was given; none where steps are on several batches.
    """

    def __init__(self) -> None:
        self.trained: list[list[Any]] = []
        self._others: list[tuple[object, list[Any]]] = []

    def trains(self, args: Iterable[Any], kwargs: Mapping[str, Any], *, one_batch: bool) -> None:
        """A model or a criterion is called in training with what no loader gave.

        Args:
            args: what it is called with.
            kwargs: the same, by name.
            one_batch: whether all steps are on one batch.
        """
        self._others = []
        if not one_batch:
            self.trained = []
            return
        given = _tensors((*args, *kwargs.values()))
        plain = [each for each in given if not each.requires_grad]
        self.trained = [*self.trained, plain][-MOST:] if len(plain) < len(given) else [plain]

    def other(self, args: Sequence[Any]) -> object | None:
        """What stands for the data of a call without gradients; None where a step was made with them.

        Args:
            args: what was called with, or a dict of that.
        """
        given = _tensors(args[0].values() if len(args) == 1 and isinstance(args[0], Mapping) else args)
        its: list[Any] = []
        for trained in self.trained:
            if trained and len(given) >= len(trained):
                its = given[-len(trained) :]
                if _are_same(its, trained):
                    return None
        if not its:
            return None
        known = next((token for token, each in self._others if _are_same(its, each)), None)
        if known is None:
            known = object()
            self._others = [*self._others, (known, its)][-MOST:]
        return known


def _tensors(values: Iterable[Any]) -> list[Any]:
    return [each for each in values if isinstance(each, torch.Tensor)]


def _are_same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(map(_is_same, some, others))


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
        return False
    return attempt(torch.equal, one, other)[0] is not False  # of sparse ones it cannot be told
