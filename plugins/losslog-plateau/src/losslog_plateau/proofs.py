"""What is proven to bear on each component, and which parts of the model each one trains.

Plain data. A proof stays until what it says is so no longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .notice import Proof

ORDER: Final = (
    "part_not_trained", "not_in_optimizer", "lr_zero", "no_targets", "tiny_weight", "zero_gradient",
    "vanishing_gradient", "unchanged",
)  # fmt: skip
"""Causes that others measure, the best proof first."""
TOLD: Final = ORDER[:3]
"""Causes that come as alerts of their own."""


class Proofs:
    """Of all components of one run.

    Attributes:
        reach: Parts that each component trains.
    """

    def __init__(self) -> None:
        self.reach: dict[str, list[str]] = {}
        self._proofs: dict[str, dict[str, Proof]] = {}

    def of(self, component: str) -> list[Proof]:
        """All that bear on a component, the best first."""
        found = self._proofs.get(component, {})
        return [found[cause] for cause in ORDER if cause in found]

    def own_to(self, component: str, proof: Proof) -> bool:
        """Whether a proof is of a part that no other loss trains, nor trained; or of no part at all."""
        part = proof.evidence.get("part")
        parts = _lost(proof) or ([] if part is None else [str(part)])
        others = [set(its) for name, its in self.reach.items() if name != component]
        for name, proofs in self._proofs.items():
            if name != component and "part_not_trained" in proofs:
                others.append(set(_lost(proofs["part_not_trained"])))
        return not parts or any(not any(part in its for its in others) for part in parts)

    def training(self, part: str) -> list[str]:
        """Losses that train a part."""
        return [name for name, parts in self.reach.items() if part in parts]

    def own(self, part: str) -> list[str]:
        """Losses for which a part is their own: which train it, where not all of several do."""
        found = self.training(part)
        return found if len(found) < len(self.reach) or len(found) == 1 else []

    def prove(self, component: str, proof: Proof) -> None:
        """Keep a proof, unless there is one of that cause."""
        self._proofs.setdefault(component, {}).setdefault(proof.cause, proof)

    def clear(self, cause: str, part: str | None) -> None:
        """A cause holds no more."""
        for proofs in self._proofs.values():
            found = proofs.get(cause)
            if found is not None and (part is None or found.evidence.get("part") == part):
                del proofs[cause]

    def drop(self, component: str, cause: str) -> None:
        """A cause holds no more for a component."""
        self._proofs.get(component, {}).pop(cause, None)

    def has(self, component: str, cause: str) -> bool:
        """Whether a cause is proven for a component."""
        return cause in self._proofs.get(component, {})

    def look(self, reach: Mapping[str, Any], parts: Any) -> None:
        """Take what each component trains, and drop the proofs of what is so no longer.

        Args:
            reach: Tensors by part, by component.
            parts: What the optimizers make of each part.
        """
        self.reach |= {name: list(found) for name, found in reach.items() if isinstance(found, Mapping) and found}
        parts = parts if isinstance(parts, Mapping) else {}
        for name, proofs in self._proofs.items():
            lost = _lost(proofs["part_not_trained"]) if "part_not_trained" in proofs else []
            trains = found if isinstance(found := reach.get(name), Mapping) else {}
            if lost and all(map([*trains].count, lost)):
                del proofs["part_not_trained"]
            for cause in ("lr_zero", "not_in_optimizer"):
                if cause in proofs and any(_is_mended(cause, parts.get(part)) for part in _about_parts(proofs[cause])):
                    del proofs[cause]

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly."""
        return {
            "proofs": {
                name: [[each.cause, each.since, each.text, dict(each.evidence)] for each in proofs.values()]
                for name, proofs in self._proofs.items()
            },
            "reach": self.reach,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._proofs = {
            name: {cause: Proof(cause, since, text, data) for cause, since, text, data in proofs}
            for name, proofs in state["proofs"].items()
        }
        self.reach = dict(state["reach"])


def _is_mended(cause: str, part: Any) -> bool:
    """Whether the record of a part says that it is so no longer."""
    if not isinstance(part, Mapping):
        return False
    rates = part.get("lr")
    return isinstance(rates, list) and any(rates) if cause == "lr_zero" else not part.get("outside")


def _about_parts(proof: Proof) -> list[str]:
    """The part that a proof is of, or all where it is of everything."""
    parts = proof.evidence.get("parts")
    return [str(part) for part in parts] if isinstance(parts, list) else [str(proof.evidence.get("part"))]


def _lost(proof: Proof) -> list[str]:
    """The parts that a loss trains no more, as its proof has them."""
    lost = proof.evidence.get("lost")
    return [str(part) for part in lost] if isinstance(lost, list | Mapping) else []
