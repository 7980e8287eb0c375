"""The parts of a model by which people speak of it: backbone, fpn, rpn, box_head, mask_head; or its top-level modules.

Plain functions on modules, for the thread that trains. Contract:

- Parameters are compared by identity, and held weakly: a model lives no longer for it.
- A part's name stays what it was, whatever models come beside.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

# First match wins; prefixes of torchvision's detectors. Other models: their top-level modules.
DETECTOR: Final = (
    ("backbone.fpn.", "fpn"),
    ("backbone.", "backbone"),
    ("rpn.", "rpn"),
    ("roi_heads.box_", "box_head"),
    ("roi_heads.mask_", "mask_head"),
    ("roi_heads.keypoint_", "keypoint_head"),
    ("head.", "head"),
)
ALL: Final = 16  # calls of `Parts.changed` of which one looks at all flags
MOST: Final = 24
REST: Final = "the rest"
"""Parts of a model that has more of them than `MOST`."""
WRAPPERS: Final = ("module", "_orig_mod", "_fsdp_wrapped_module")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a model.

    Attributes:
        name: ``backbone``, ``mask_head``; or the name of a top-level module.
        tensors: Parameters it has.
        trainable: Those with ``requires_grad``.
        size: Numbers in them.
        outside: Trainable parameters that are in no group of an optimizer.
        still: Trainable parameters whose group has a learning rate of 0.
        rates: Learning rates of its groups.
        evaluating: Whether all of its modules are in eval mode, though the model is trained.
    """

    name: str
    tensors: int
    trainable: int
    size: int
    outside: int = 0
    still: int = 0
    rates: tuple[float, ...] = ()
    evaluating: bool = False


class Parts:
    """Which part of a model each of its parameters belongs to.

    Args:
        models: Modules, also wrapped (DistributedDataParallel, torch.compile, FSDP). The parts of all but the first one
            begin with the class's name.
        names: What the models were called before, by model; new ones are added.
        known: The parts that were known before.

    Attributes:
        ever: Parts of which any parameter was trainable at a `mark`.
    """

    def __init__(
        self, *models: nn.Module, names: MutableMapping[nn.Module, str] | None = None, known: Parts | None = None
    ) -> None:
        names = {} if names is None else names
        self.of: dict[int, str] = {}
        self.ever: set[str] = {*known.ever} if known is not None else set()
        self._parameters: dict[str, list[weakref.ref[nn.Parameter]]] = {}
        self._owners: dict[str, list[weakref.ref[nn.Module]]] = {}
        self._tops = [weakref.ref(model) for model in models]
        self._flags: list[bool] = []
        self._turn = 0
        self._watchmen: list[tuple[weakref.ref[nn.Parameter], bool]] = []
        for model in models:
            inner, prefix = _unwrapped(model)
            if all(id(each) in self.of for each in inner.parameters()):  # of an earlier one, or none
                continue
            children = dict(inner.named_children())
            own = _named(inner, names)
            if own:
                prefix = f"{own}.{prefix}"
            detector = "rpn" in children or "roi_heads" in children or hasattr(children.get("backbone"), "fpn")
            table = DETECTOR if detector else ()
            for name, parameter in inner.named_parameters():  # a shared parameter is listed once
                if id(parameter) in self.of:
                    continue
                part = next((part for start, part in table if name.startswith(start)), None)
                part = part or prefix + (name.partition(".")[0] if "." in name else "parameters" if children else "")
                part = part.rstrip(".") or type(inner).__name__.lower()
                if part not in self._parameters and len(self._parameters) >= MOST:
                    part = REST
                self.of[id(parameter)] = part
                self._parameters.setdefault(part, []).append(weakref.ref(parameter))
            for module in inner.modules():
                for parameter in module.parameters(recurse=False):
                    self._owners.setdefault(self.of[id(parameter)], []).append(weakref.ref(module))
                    break

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._parameters)

    def mark(self) -> None:
        """Remember which parameters are trainable."""
        self._flags = [each.requires_grad for _, each in self.parameters()]
        self.ever.update(part for part, each in self.parameters() if each.requires_grad)
        watchmen: dict[str, tuple[weakref.ref[nn.Parameter], bool]] = {}
        for part, each in self.parameters():
            if part not in watchmen or (each.requires_grad and not watchmen[part][1]):
                watchmen[part] = weakref.ref(each), each.requires_grad
        self._watchmen = [*watchmen.values()]  # one of each part, that is trained if any is: none freezes without it

    def changed(self) -> bool:
        """Whether others are since `mark`: a part as a whole at once, single ones within 16 calls."""
        for ref, flag in self._watchmen:
            if (each := ref()) is not None and each.requires_grad is not flag:
                return True
        self._turn = (self._turn + 1) % ALL
        return not self._turn and [each.requires_grad for _, each in self.parameters()] != self._flags

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter that is alive, with its part."""
        for part, parameters in self._parameters.items():
            for ref in parameters:
                if (each := ref()) is not None:
                    yield part, each

    def held(self, optimizers: Iterable[Any]) -> set[str]:
        """Names of the parts of which these optimizers have any parameter."""
        parameters = (each for one in optimizers for group in one.param_groups for each in group["params"])
        return {self.of[id(each)] for each in parameters if id(each) in self.of}

    def summary(self, optimizers: Iterable[Any] = ()) -> dict[str, Part]:
        """Every part, and what the optimizers make of it.

        Args:
            optimizers: Anything with ``param_groups``; with none of them, nothing is known of groups.
        """
        rates = {
            id(p): float(group["lr"]) for each in optimizers for group in each.param_groups for p in group["params"]
        }
        known = any(key in rates for key in self.of)  # else they are copies of these: a master's, a shard's
        members: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.parameters():
            members.setdefault(name, []).append(parameter)
        training = any((top := ref()) is not None and top.training for ref in self._tops)
        found = {}
        for name, parameters in members.items():
            trainable = [p for p in parameters if p.requires_grad]
            grouped = [rates[id(p)] for p in trainable if id(p) in rates]
            found[name] = Part(
                name=name,
                tensors=len(parameters),
                trainable=len(trainable),
                size=sum(p.numel() for p in parameters),
                outside=len(trainable) - len(grouped) if known else 0,
                still=sum(rate == 0 for rate in grouped),
                rates=tuple(sorted({rates[id(p)] for p in trainable or parameters if id(p) in rates})),
                evaluating=training and not any((m := ref()) is not None and m.training for ref in self._owners[name]),
            )
        return found


def moved_by(optimizers: Iterable[Any]) -> set[int]:
    """Identities of what optimizers have in their groups."""
    return {id(each) for one in optimizers for group in one.param_groups for each in group["params"]}


def trained(models: Iterable[nn.Module], optimizers: Iterable[Any]) -> list[nn.Module]:
    """The models that are trained, those that an optimizer has first.

    What is frozen as a whole and in no optimizer (a teacher, a perceptual loss) stands beside them. Where
    there is nothing else (an image is trained), all of them.
    """
    models = [*models]
    moved = moved_by(optimizers)
    has = {model: any(id(each) in moved for each in model.parameters()) for model in models}
    found = [model for model in models if has[model] or any(each.requires_grad for each in model.parameters())]
    return sorted(found or models, key=lambda model: not has[model])


def _named(model: nn.Module, names: MutableMapping[nn.Module, str]) -> str:
    """What a model is called; the first one is not."""
    if model not in names:
        name = "" if not names and list(model.children()) else type(model).__name__.lower()
        count = sum(each.partition("-")[0] == name for each in names.values()) + 1
        names[model] = name if count == 1 else f"{name}-{count}"
    return names[model]


def _unwrapped(model: nn.Module) -> tuple[nn.Module, str]:
    """The module inside wrappers and lonely parents, and the names of the parents."""
    prefix = ""
    while True:
        children = dict(model.named_children())
        own = next(iter(model.parameters(recurse=False)), None)
        if own is not None or len(children) != 1:
            return model, prefix
        (name, child), *_ = children.items()
        if next(child.parameters(), None) is None or not list(child.children()):
            return model, prefix
        prefix += "" if name in WRAPPERS else f"{name}."
        model = child


def is_sharded(models: Iterable[nn.Module]) -> bool:
    """Whether parameters are spread over processes (FSDP), so that none computes alone."""
    return any(
        type(module).__name__ == "FullyShardedDataParallel"
        or any(hasattr(each, "to_local") for each in module.parameters(recurse=False))
        for model in models
        for module in model.modules()
    )
