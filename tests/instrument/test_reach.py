"""What each loss trains, on real models: torchvision's detectors, under AMP, checkpointing, compile and DDP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from losslog.detection import build_maskrcnn  # noqa: E402
from losslog.detection.stall import stall_mask_branch  # noqa: E402
from losslog.instrument.parts import ALL, Parts  # noqa: E402
from losslog.instrument.reach import lost, reach, told  # noqa: E402

TRUNK = {"backbone", "fpn"}
HEADS = {
    "loss_classifier": {"box_head"},
    "loss_box_reg": {"box_head"},
    "loss_mask": {"mask_head"},
    "loss_objectness": {"rpn"},
    "loss_rpn_box_reg": {"rpn"},
}


def batch() -> tuple[list[Any], list[dict[str, Any]]]:
    torch.manual_seed(0)
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[:, 10:50, 10:50] = 1
    target = {"boxes": torch.tensor([[10.0, 10.0, 50.0, 50.0]]), "labels": torch.tensor([1]), "masks": masks}
    return images, [target, target]


def losses_of(model: Any) -> dict[str, Any]:
    losses: dict[str, Any] = model(*batch())
    return losses


def parts_reached(losses: dict[str, Any], parts: Parts) -> dict[str, set[str]]:
    return {name: set(found.tensors) for name, found in reach(losses, parts).items()}


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return build_maskrcnn(3, "tiny").train()


@pytest.fixture(scope="module")
def resnet() -> Any:
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    return maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64).train()


def test_each_loss_of_a_mask_rcnn_trains_the_trunk_and_its_head(model: Any) -> None:
    found = reach(losses_of(model), Parts(model))
    assert {name: set(each.tensors) for name, each in found.items()} == {n: TRUNK | h for n, h in HEADS.items()}
    assert all(each.certain and each.attached for each in found.values())


def test_resnet50_is_counted_to_the_tensor(resnet: Any) -> None:
    parts = Parts(resnet)
    found = reach(losses_of(resnet), parts)["loss_mask"]
    summary = parts.summary()
    wanted = {name: summary[name].trainable for name in ("backbone", "fpn", "mask_head")}
    assert found.tensors == wanted
    assert found.total == sum(wanted.values()) > 150


def test_a_walk_before_and_after_backward_is_the_same(model: Any) -> None:
    losses, parts = losses_of(model), Parts(model)
    before = reach(losses, parts)
    sum(losses.values()).backward()
    assert reach(losses, parts) == before


def test_stalled_mask_branch_trains_nothing_and_says_why(model: Any) -> None:
    parts = Parts(model)
    before = reach(losses_of(model), parts)
    stall_mask_branch(model)
    found = lost(before, reach(losses_of(model), parts), parts.summary())
    assert {(each.component, each.part, each.why) for each in found} == {
        ("loss_mask", "mask_head", "requires_grad is False"),
        ("loss_mask", "backbone", "detached"),
        ("loss_mask", "fpn", "detached"),
    }
    assert told(found, 140).startswith("loss_mask trains nothing since step 140: ")


def test_frozen_head_alone_is_a_part_lost(model: Any) -> None:
    parts = Parts(model)
    before = reach(losses_of(model), parts)
    for module in (model.roi_heads.mask_head, model.roi_heads.mask_predictor):
        module.requires_grad_(False)
    found = lost(before, reach(losses_of(model), parts), parts.summary())
    assert told(found, 7) == "loss_mask no longer trains mask_head since step 7: mask_head: requires_grad is False"


def test_part_of_a_head_frozen_is_no_loss_of_a_part(model: Any) -> None:
    parts = Parts(model)
    before = reach(losses_of(model), parts)
    model.roi_heads.mask_predictor.requires_grad_(False)
    assert lost(before, reach(losses_of(model), parts), parts.summary()) == []


def test_head_in_eval_under_no_grad_trains_nothing(model: Any) -> None:
    parts = Parts(model)
    before = reach(losses_of(model), parts)
    forward = model.roi_heads.mask_predictor.forward

    def blind(features: Any) -> Any:
        with torch.no_grad():
            return forward(features)

    model.roi_heads.mask_predictor.forward = blind
    found = reach(losses_of(model), parts)["loss_mask"]
    assert (found.total, found.attached) == (0, False)
    assert {each.part for each in lost(before, {"loss_mask": found}, parts.summary())} == TRUNK | {"mask_head"}


def test_a_part_that_freezes_is_seen_at_once_and_a_parameter_soon(model: Any) -> None:
    parts = Parts(model)
    next(model.rpn.parameters()).requires_grad_(False)
    parts.mark()
    assert not any(parts.changed() for _ in range(ALL))
    [*model.roi_heads.parameters()][-1].requires_grad_(False)
    assert [parts.changed() for _ in range(ALL)].count(True) == 1
    parts.mark()
    model.rpn.requires_grad_(False)
    assert parts.changed()
    parts.mark()
    model.rpn.requires_grad_(True)
    assert parts.changed()


def test_summary_tells_what_is_outside_the_optimizer_and_what_stands_still(model: Any) -> None:
    parts = Parts(model)
    groups = [
        {"params": list(model.backbone.parameters()), "lr": 0.1},
        {"params": list(model.rpn.parameters()), "lr": 0.0},
        {"params": [p for name, p in model.roi_heads.named_parameters() if name.startswith("box")], "lr": 0.2},
    ]
    found = parts.summary([torch.optim.SGD(groups)])
    assert found["mask_head"].outside == found["mask_head"].trainable > 0
    assert found["rpn"].still == found["rpn"].trainable > 0
    assert (found["backbone"].outside, found["backbone"].still, found["box_head"].rates) == (0, 0, (0.2,))


def test_without_an_optimizer_nothing_is_outside(model: Any) -> None:
    assert all(part.outside == 0 for part in Parts(model).summary().values())


def test_what_is_frozen_from_the_start_is_no_loss(model: Any) -> None:
    model.backbone.requires_grad_(False)
    parts = Parts(model)
    first, second = (reach(losses_of(model), parts) for _ in range(2))
    assert set(first["loss_mask"].tensors) == {"mask_head"}
    assert lost(first, second, parts.summary()) == []


def test_autocast_changes_nothing(model: Any) -> None:
    plain = reach(losses_of(model), Parts(model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert reach(losses_of(model), Parts(model)) == plain


class Checkpointed(nn.Module):
    """Two heads on a trunk; the trunk is checkpointed."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.trunk, self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(4, 1)
        self.reentrant = reentrant

    def forward(self, x: Any) -> dict[str, Any]:
        features = checkpoint(self.trunk, x, use_reentrant=self.reentrant)
        return {"left": self.left(features).mean(), "right": self.right(features).mean()}


def test_checkpoint_without_reentrance_hides_nothing() -> None:
    model = Checkpointed(reentrant=False)
    found = reach(model(torch.rand(2, 4)), Parts(model))
    assert {name: dict(each.tensors) for name, each in found.items()} == {
        "left": {"trunk": 2, "left": 2},
        "right": {"trunk": 2, "right": 2},
    }
    assert found["left"].certain


def test_reentrant_checkpoint_is_said_to_hide_what_is_in_it() -> None:
    model = Checkpointed(reentrant=True)
    parts, x = Parts(model), torch.rand(2, 4, requires_grad=True)
    first = reach(model(x), parts)
    assert not first["left"].certain
    model.left.requires_grad_(False)
    assert lost(first, reach(model(x), parts), parts.summary()) == []  # not knowable, so not claimed


def test_compiled_model_reaches_what_the_plain_one_does() -> None:
    plain = Checkpointed(reentrant=False)
    plain.forward = lambda x: {"left": plain.left(plain.trunk(x)).mean()}  # type: ignore[method-assign]
    model = torch.compile(plain, backend="aot_eager")
    found = reach(model(torch.rand(2, 4)), Parts(model))["left"]
    assert dict(found.tensors) == {"trunk": 2, "left": 2}
    assert found.certain


@pytest.fixture
def group(tmp_path: Any) -> Iterator[None]:
    from torch import distributed

    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("needs torch.distributed with gloo")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_ddp_is_looked_through(group: None, model: Any) -> None:
    from torch.nn.parallel import DistributedDataParallel

    plain = parts_reached(losses_of(model), Parts(model))
    wrapped = DistributedDataParallel(model)
    assert parts_reached(losses_of(wrapped), Parts(wrapped)) == plain


class Parent(nn.Module):
    """A module that only holds another, as trainers' own modules do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.model = inner


@pytest.mark.parametrize("wrap", [lambda m: m, Parent, lambda m: Parent(Parent(m))])
def test_parts_of_a_detector_keep_their_names_in_other_modules(wrap: Callable[[Any], Any], model: Any) -> None:
    assert set(Parts(wrap(model)).summary()) == {"backbone", "fpn", "rpn", "box_head", "mask_head"}


def test_retinanet_has_its_parts() -> None:
    from torchvision.models.detection import retinanet_resnet50_fpn

    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64)
    found = parts_reached(losses_of(model.train()), Parts(model))
    assert found == {"classification": TRUNK | {"head"}, "bbox_regression": TRUNK | {"head"}}


def test_other_models_have_their_top_level_modules() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    assert parts_reached({"loss": model(torch.rand(3, 2)).mean()}, Parts(model)) == {"loss": {"0", "2"}}


def test_a_loss_that_is_a_parameter_trains_it() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(()))
    assert reach({"penalty": model.weight}, Parts(model))["penalty"].total == 1


def test_numbers_are_left_out_and_detached_losses_train_nothing(model: Any) -> None:
    found = reach({"loss_mask": losses_of(model)["loss_mask"].detach(), "lr": 0.1}, Parts(model))
    assert {name: (each.total, each.attached) for name, each in found.items()} == {"loss_mask": (0, False)}


def test_a_leaf_of_another_model_leaves_it_uncertain() -> None:
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    x = torch.rand(3, 2)
    assert not reach({"loss": (model(x) + other(x)).mean()}, Parts(model))["loss"].certain


def test_shared_trunk_is_walked_once_for_all_losses() -> None:
    """A graph of 60 doublings: walked path by path it would never end."""
    weight = torch.ones((), requires_grad=True)
    x = weight * 2
    for _ in range(60):
        x = x + x
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(()))
    assert not reach({"a": x, "b": x * 2}, Parts(model))["a"].certain


def test_nothing_is_kept_alive(model: Any) -> None:
    import gc
    import weakref

    losses, parts = losses_of(model), Parts(model)
    gone = weakref.ref(losses["loss_mask"])
    found = reach(losses, parts)
    del losses
    gc.collect()
    assert gone() is None
    assert found["loss_mask"].total > 0
