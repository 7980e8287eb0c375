"""What a detector gets wrong: named, counted, and what it costs, held against pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from losslog.detection.evaluated import Evaluated
from losslog.detection.matching import seen_by
from losslog.detection.mistakes import (
    BOTH,
    DUPLICATE,
    EXTRA,
    KINDS,
    LOCALISATION,
    MISSED,
    WRONG_CLASS,
    Table,
    average_precision,
)
from losslog.runtime.notices import Once
from losslog.values.pictures import pictures

SIDE = 300
Row = dict[str, Any]


def outline(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def truth_of(boxes: list[tuple[int, int, list[float]]], crowds: tuple[int, ...] = ()) -> dict[str, Any]:
    """(image, class, box) each."""
    annotations = [
        {"id": at, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3],
         "iscrowd": int(at in crowds), "segmentation": outline(*box)}
        for at, (image, label, box) in enumerate(boxes, start=1)
    ]  # fmt: skip
    images = [{"id": n, "file_name": f"{n}.jpg", "width": SIDE, "height": SIDE} for n in {each[0] for each in boxes}]
    return {"images": images, "annotations": annotations, "info": {},
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}  # fmt: skip


def row(image: int, label: int, box: list[float], score: float, mask: list[float] | None = None) -> Row:
    found: Row = {"image_id": image, "category_id": label, "bbox": box, "score": score}
    return found | ({"mask": mask} if mask else {})


def scored(content: dict[str, Any], rows: list[Row], kind: str = "bbox", evaluator: Any = COCOeval) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        given = []
        for each in rows:
            plain = {key: each[key] for key in ("image_id", "category_id", "score")}
            if kind == "bbox":
                given.append(plain | {"bbox": list(each["bbox"])})
            else:
                rle = truth.annToRLE({"segmentation": outline(*each.get("mask", each["bbox"])), "image_id": 1})
                given.append(plain | {"segmentation": rle})
        scorer = evaluator(truth, truth.loadRes(given), kind)
        scorer.params.imgIds = sorted(truth.imgs)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return scorer


# One of each kind, each in an image of its own, over objects that are found.
PLANTED = truth_of([
    (1, 1, [10, 10, 60, 60]), (1, 2, [150, 150, 60, 60]),
    (2, 1, [10, 10, 60, 60]), (3, 1, [10, 10, 60, 60]), (4, 1, [10, 10, 60, 60]), (5, 2, [10, 10, 60, 60]),
    (6, 2, [10, 10, 60, 60]), (7, 1, [10, 10, 60, 60]), (7, 2, [200, 200, 60, 60]),
])  # fmt: skip
FOUND = [
    row(1, 1, [10, 10, 60, 60], 0.95), row(1, 2, [150, 150, 60, 60], 0.9),  # right, both
    row(2, 2, [12, 10, 60, 60], 0.85),  # wrong class
    row(3, 1, [40, 10, 60, 60], 0.8),  # half a box off: overlap 1/3
    row(4, 2, [40, 10, 60, 60], 0.75),  # and of another class, too
    row(5, 2, [10, 10, 60, 60], 0.7), row(5, 2, [12, 10, 60, 60], 0.65),  # found twice
    row(6, 2, [10, 10, 60, 60], 0.6), row(6, 1, [200, 200, 40, 40], 0.55),  # found, and one where nothing is
    row(7, 1, [10, 10, 60, 60], 0.5),  # the dog is missed
]  # fmt: skip


def test_one_of_each_kind_is_named_and_counted() -> None:
    seen = Evaluated({"bbox": scored(PLANTED, FOUND)})
    kinds = {each.image: [kind for kind in each.kinds if kind] + ["missed"] * sum(each.missed) for each in seen.images}
    assert kinds == {1: [], 2: [WRONG_CLASS], 3: [LOCALISATION], 4: [BOTH, MISSED], 5: [DUPLICATE], 6: [EXTRA],
                     7: [MISSED]}  # fmt: skip
    metrics = seen.metrics()
    assert {kind: metrics[f"mistakes_count/{kind}"] for kind in KINDS} == dict.fromkeys(KINDS, 1.0) | {MISSED: 2.0}


def mended_by_hand(kind: str) -> tuple[dict[str, Any], list[Row]]:
    """The same set with one kind of mistake mended, as the paper's oracles do."""
    content, rows = copy.deepcopy(PLANTED), copy.deepcopy(FOUND)
    if kind == WRONG_CLASS:
        rows[2]["category_id"] = 1
    elif kind == LOCALISATION:
        rows[3]["bbox"] = [10, 10, 60, 60]
    elif kind == BOTH:
        del rows[4]
    elif kind == DUPLICATE:
        del rows[6]
    elif kind == EXTRA:
        del rows[8]
    else:
        lost = [each for each in content["annotations"] if (each["image_id"], each["category_id"]) in ((4, 1), (7, 2))]
        content["annotations"] = [each for each in content["annotations"] if each not in lost]
    return content, rows


def ap50(scorer: Any) -> float:
    return float(scorer.stats[1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kind_costs_is_what_pycocotools_gives_with_it_mended(kind: str) -> None:
    before = scored(PLANTED, FOUND)
    after = scored(*mended_by_hand(kind))
    costs = Evaluated({"bbox": before}).metrics()
    assert costs[f"mistakes/{kind}"] == pytest.approx(ap50(after) - ap50(before), abs=1e-6)
    assert costs[f"mistakes/{kind}"] > 0


def test_what_is_meant_for_an_object_that_is_found_goes_where_it_is_mended() -> None:
    content = truth_of([(1, 1, [20, 20, 40, 40]), (2, 2, [20, 20, 40, 40]), (3, 1, [20, 20, 40, 40])])
    rows = [
        row(1, 1, [20, 20, 40, 40], 0.5), row(1, 2, [20, 20, 40, 40], 0.9),  # right, and of another class, too
        row(2, 2, [20, 20, 40, 40], 0.6), row(3, 1, [200, 200, 30, 30], 0.7),
    ]  # fmt: skip
    before, without = scored(content, rows), scored(content, [rows[0], *rows[2:]])
    costs = Evaluated({"bbox": before}).metrics()
    assert costs["mistakes/wrong_class"] == pytest.approx(ap50(without) - ap50(before), abs=1e-6)
    assert costs["mistakes/wrong_class"] > 0
    rows[1] = row(1, 1, [20, 40, 40, 40], 0.9)  # half a box off, in its place
    before = scored(content, rows)
    costs = Evaluated({"bbox": before}).metrics()
    assert costs["mistakes/localisation"] == pytest.approx(ap50(without) - ap50(before), abs=1e-6)
    assert costs["mistakes/localisation"] > 0


def by_definition(table: Table, kind: str) -> float:
    """AP with a kind mended, taken from TIDE's words: the best meant for a free object becomes its match."""
    rows: list[tuple[Any, float, bool]] = []
    first: dict[tuple[int, int], int] = {}
    for number in sorted(range(len(table.rows)), key=lambda row: -table.scores[row]):
        image, place = table.rows[number]
        seen = table.images[image]
        aim = image, seen.aims[place]
        label, hit = seen.found[place]["category_id"], bool(table.hits[number])
        if seen.kinds[place] in (WRONG_CLASS, LOCALISATION):
            first.setdefault(aim, number)
        if seen.kinds[place] == kind:
            if kind not in (WRONG_CLASS, LOCALISATION) or seen.taken[aim[1]] >= 0 or first[aim] != number:
                continue
            label, hit = seen.truth[aim[1]]["category_id"], True
        rows.append((label, table.scores[number], hit))
    lost = table.lost if kind == MISSED else {}
    objects = {label: count - lost.get(label, 0) for label, count in table.objects.items()}
    labels, scores, hits = (np.array(each) for each in zip(*rows, strict=True))
    return average_precision(labels, scores.astype(np.float64), hits.astype(bool), objects)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_costs_are_those_of_the_definition(seed: int, kind: str) -> None:
    table = Table(Evaluated({"bbox": scored(*random_set(seed, 30))}).images)
    assert table.mended({kind}) == pytest.approx(by_definition(table, kind), abs=1e-9)


def test_with_everything_mended_nothing_is_lacking() -> None:
    seen = Evaluated({"bbox": scored(PLANTED, FOUND)})
    assert Table(seen.images).mended(KINDS) == pytest.approx(1.0)


def random_set(seed: int, images: int = 12) -> tuple[dict[str, Any], list[Row]]:
    random = np.random.default_rng(seed)
    boxes, rows = [], []
    for image in range(1, images + 1):
        for _ in range(int(random.integers(0, 6)) + (image == 1)):
            box = [*random.integers(0, 200, 2).tolist(), *random.integers(10, 90, 2).tolist()]
            boxes.append((image, int(random.integers(1, 3)), [float(value) for value in box]))
            for _ in range(int(random.integers(0, 4))):
                off = [value + float(random.normal(0, 12)) for value in box]
                off[2:] = [max(2.0, value) for value in off[2:]]
                rows.append(row(image, int(random.integers(1, 3)), off, round(float(random.random()), 2)))  # ties, too
    rows += [row(1, 1, [250.0, 250.0, 20.0, 20.0], 0.5)]
    return truth_of(boxes, tuple(range(3, len(boxes), 7))), rows


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(5))
def test_matches_and_ap_are_cocos_own(seed: int, kind: str) -> None:
    content, rows = random_set(seed)
    scorer = scored(content, rows, kind)
    (threshold,) = np.flatnonzero(np.isclose(scorer.params.iouThrs, 0.5))
    wanted = {}
    for each in scorer.evalImgs:
        if each is not None and each["aRng"] == scorer.params.areaRng[0]:
            wanted |= dict(zip(each["dtIds"], each["dtMatches"][threshold].astype(int).tolist(), strict=True))
    images = seen_by(scorer) or []
    found = {
        each["id"]: seen.truth[match]["id"] if match >= 0 else 0
        for seen in images
        for each, match in zip(seen.found, seen.match.tolist(), strict=True)
    }
    assert found == wanted
    assert any(found.values())
    assert Table(Evaluated({kind: scorer}).images).ap() == pytest.approx(ap50(scorer), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_faster_coco_eval_tells_the_same(seed: int) -> None:
    faster = pytest.importorskip("faster_coco_eval", reason="faster_coco_eval is not installed")
    content, rows = random_set(seed)
    plain = Evaluated({"bbox": scored(content, rows)}).metrics()
    assert plain == Evaluated({"bbox": scored(content, rows, evaluator=faster.COCOeval_faster)}).metrics()
    assert plain


@pytest.mark.parametrize("seed", range(4))
def test_mending_never_costs_and_all_of_it_is_everything(seed: int) -> None:
    table = Table(Evaluated({"bbox": scored(*random_set(seed))}).images)
    assert min(table.costs().values()) >= -1e-12
    assert table.mended(KINDS) == pytest.approx(1.0)


def test_a_poor_mask_in_a_good_box_is_told_apart_and_its_cost_is_that_of_the_masks() -> None:
    rows = copy.deepcopy(FOUND)
    rows[0]["mask"] = [10, 10, 20, 60]  # a third of the object
    box, segm = scored(PLANTED, rows), scored(PLANTED, rows, "segm")
    seen = Evaluated({"bbox": box, "segm": segm})
    metrics = seen.metrics()
    assert metrics["mistakes_count/poor_mask"] == 1
    mended = scored(PLANTED, FOUND, "segm")
    assert metrics["mistakes/poor_mask"] == pytest.approx(ap50(mended) - ap50(segm), abs=1e-6)
    assert metrics["mistakes/poor_mask"] > 0
    (first,) = [each for each in seen.fixed(1)]
    assert [each.get("mistake") for each in first["predictions"]] == ["poor_mask", None]
    assert first["predictions"][0]["iou"] == pytest.approx(1 / 3, abs=0.02)


def test_another_split_has_series_of_its_own() -> None:
    metrics = Evaluated({"bbox": scored(PLANTED, FOUND)}).metrics("test")
    assert {tag.partition("/")[0] for tag in metrics} == {"mistakes_test", "mistakes_count_test"}


def test_the_fixed_are_the_first_by_id_and_the_hardest_those_with_most_wrong() -> None:
    seen = Evaluated({"bbox": scored(PLANTED, FOUND)})
    assert [each["id"] for each in seen.fixed(3)] == [1, 2, 3]
    assert [each["id"] for each in seen.fixed([7, 99, 2])] == [7, 2]
    hardest = seen.hardest()
    assert [each["id"] for each in hardest] == [2, 3, 4, 7, 5, 6]  # 1.85, 1.8, 1.75, 1, 0.65, 0.55
    four = hardest[2]
    assert (four["missed"], four["extra"], four["mistakes"]) == (1, 1, {"missed": 1, "both": 1})
    assert four["path"] == "4.jpg"
    assert four["predictions"][0]["box"] == [40.0, 10.0, 100.0, 70.0]
    assert four["predictions"][0]["label"] == "dog"


@pytest.mark.parametrize("odd", [
    {"score": 5.0}, {"bbox": [float("nan"), 1.0, 2.0, 3.0]}, {"bbox": [0.0, 0.0, float("inf"), 3.0]},
    {"bbox": [float("-inf"), 0.0, 10.0, 3.0]}, {"bbox": [0.0, 0.0, 1e12, 3.0]},
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:pycocotools")
def test_what_cannot_be_drawn_is_left_out_and_said(
    odd: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("losslog.detection.evaluated._said", Once())
    seen = Evaluated({"bbox": scored(PLANTED, [*FOUND, row(1, 1, [10, 10, 60, 60], 0.9) | odd])})
    assert seen.metrics()["mistakes_count/wrong_class"] == 1
    images = [*seen.fixed(), *seen.hardest()]
    assert pictures(images)[0]
    assert [round(each["score"], 2) for each in images[0]["predictions"]] == [0.95, 0.9]
    assert caplog.text.count("is not drawn: boxes must be finite") == 1


def test_what_is_not_shown_is_counted() -> None:
    places = [[30.0 * (n % 10), 30.0 * (n // 10), 20.0, 20.0] for n in range(60)]
    rows = [row(1, 1, box, 0.95 - n / 100) for n, box in enumerate(places)]
    content = truth_of([(1, 1, box) for box in places])
    (image,) = Evaluated({"bbox": scored(content, rows)}).fixed()
    assert (image["missed"], image["mistakes"], len(image["predictions"])) == (0, {}, 30)
    assert image["left_out"] == {"objects": 30}
    (image,) = Evaluated({"bbox": scored(truth_of([(1, 2, places[0])]), rows)}).fixed()
    assert image["mistakes"] == {"wrong_class": 1, "extra": 59}
    assert image["extra"] == 60


def test_what_cannot_be_told_is_left_out() -> None:
    scorer = scored(PLANTED, FOUND)
    scorer.params.useCats = 0
    assert Evaluated({"bbox": scorer}).images == []
    assert Evaluated({}).metrics() == {}
    assert Evaluated({}).fixed() == Evaluated({}).hardest() == []
    nothing = scored(truth_of([(1, 1, [1, 1, 9, 9])], crowds=(1,)), [row(1, 1, [1, 1, 9, 9], 0.5)])
    assert Evaluated({"bbox": nothing}).metrics() == {}
