"""Drawing: what a record has is on the sheet, and what cannot be read is grey and a line."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

import losslog
from losslog.detection import drawing
from losslog.detection.chips import PALETTE, WRONG, colours, font_for, write
from losslog.detection.drawing import Sheet, caption, encoded, opened
from losslog.history import records
from losslog.runtime.notices import Once

WIDTH, HEIGHT = 400, 300
GREEN = (0, 120, 0)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_said", Once())


def thing(box: list[float], label: str = "cat", **more: Any) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[round(box[1]) : round(box[3]), round(box[0]) : round(box[2])] = 1
    rle = mask_api.encode(np.asfortranarray(mask))
    return {"box": box, "label": label, "rle": {"size": rle["size"], "counts": rle["counts"].decode()}, **more}


def image(path: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": 3, "path": None if path is None else str(path), "width": WIDTH, "height": HEIGHT,
            "truth": [thing([100, 60, 200, 160])],
            "predictions": [thing([100, 60, 200, 160], score=0.9), thing([260, 180, 380, 280], "dog", score=0.5,
                                                                          mistake="extra")], **more}  # fmt: skip


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (WIDTH, HEIGHT), GREEN).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def at(sheet: Image.Image, x: float, y: float) -> Any:
    return sheet.convert("RGB").getpixel((round(x), round(y)))


def near(colour: Any, other: Any, most: int = 12) -> bool:
    return all(abs(a - b) <= most for a, b in zip(colour, other, strict=True))


def test_truth_stands_beside_predictions_with_masks_and_what_is_wrong_in_a_frame(picture: Path) -> None:
    sheet = Sheet([image(picture)], side=200)
    drawn_ = sheet.drawn()
    cat, dog = (np.array(sheet.colours[name]) for name in ("cat", "dog"))
    ground = np.array(GREEN)
    left, right, top = 6, 6 + 200 + 2, 6  # where the two pictures begin; half the size
    assert near(at(drawn_, left + 75, top + 60), ground * 0.55 + cat * 0.45)
    assert near(at(drawn_, right + 75, top + 60), ground * 0.55 + cat * 0.45)
    assert near(at(drawn_, left + 160, top + 125), ground)  # no dog in the truth
    assert near(at(drawn_, right + 160, top + 125), ground * 0.55 + dog * 0.45)
    assert near(at(drawn_, left + 20, top + 120), ground)
    assert tuple(at(drawn_, right + 130 - 2, top + 115)) == (225, 20, 20)  # the frame of the extra one
    assert near(at(drawn_, right + 130, top + 115), dog)
    assert not near(at(drawn_, right + 50 - 2, top + 60), (225, 20, 20), 40)  # none around what is right


def test_a_sheet_of_truth_alone_has_one_picture_an_image(picture: Path) -> None:
    alone = {**image(picture), "predictions": []}
    assert Sheet([alone]).drawn().width < Sheet([image(picture)]).drawn().width


def test_boxes_and_masks_for_those_who_draw_themselves_lie_where_the_picture_is(picture: Path) -> None:
    sheet = Sheet([image(picture), image(picture)], both=False, side=200)
    numbers = {"cat": 1, "dog": 2}
    plane, found = sheet.mask("predictions", numbers), sheet.boxes("predictions")
    assert plane.shape[::-1] == sheet.plain().size
    assert [each["label"] for _, each in found] == ["cat", "dog"] * 2
    for box, each in found:
        x1, y1, x2, y2 = (round(value) for value in box)
        inside = plane[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
        assert (inside == numbers[each["label"]]).all()
    assert set(np.unique(sheet.mask("truth", numbers))) == {0, 1}


def test_a_label_keeps_its_colour_and_no_two_are_alike() -> None:
    alone, many = colours(["cat"]), colours(["cat", *(f"class {n}" for n in range(20))])
    assert len(set(many.values())) == 21
    assert colours(["cat", "dog"])["cat"] == alone["cat"]
    assert len(colours([f"class {n}" for n in range(90)])) == 90


def test_colours_are_told_apart_from_each_other_and_from_what_is_wrong() -> None:
    others = (*PALETTE, WRONG)
    far = min(np.abs(np.subtract(one, other)).sum() for one in PALETTE for other in others if one != other)
    assert len(set(PALETTE)) == len(PALETTE)
    assert far >= 60


def test_words_at_one_corner_do_not_cover_each_other() -> None:
    pane = Image.new("RGB", (200, 200), GREEN)
    boxes = [[60.0, 80.0, 120.0, 140.0], [62.0, 81.0, 121.0, 139.0], [59.0, 79.0, 119.0, 141.0]]
    shades = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    write(pane, [(box, [("circle 0.90", shade)]) for box, shade in zip(boxes, shades, strict=True)])
    pixels = np.asarray(pane)
    sizes = [int((pixels == shade).all(axis=2).sum()) for shade in shades]
    assert min(sizes) > 0.95 * max(sizes) > 300


@pytest.mark.parametrize("fonts", [None, ()])
def test_letters_that_no_font_has_are_spelt_plainly(fonts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if fonts is not None:
        monkeypatch.setattr("losslog.detection.chips._others", lambda: fonts)
    text, _ = font_for("Bär\n\U0010fffd x", 10)
    assert text in ("Bär ? x", "Bar ? x")
    assert font_for("a\tb", 10)[0] == "a b"
    assert fonts is None or text == "Bar ? x"


def test_where_there_is_no_room_the_surest_is_on_top() -> None:
    pane = Image.new("RGB", (60, 14), GREEN)
    write(pane, [([0.0, 0.0, 60.0, 14.0], [("a", (1, 2, 3))]), ([0.0, 0.0, 60.0, 14.0], [("a", (4, 5, 6))])])
    assert pane.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("kind", ["gone", "text", "torn", "another", "link", "folder", "eps", "pipe"])
def test_what_cannot_be_read_is_grey_and_said_once(
    picture: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / f"{kind}.png"
    if kind == "text":
        bad.write_text("no picture")
    elif kind == "torn":
        bad.write_bytes(picture.read_bytes()[:60])
    elif kind == "another":
        Image.new("RGB", (HEIGHT, WIDTH)).save(bad)
    elif kind == "link":
        try:
            bad.symlink_to(picture)
        except OSError:
            pytest.skip("links need a right here")
    elif kind == "folder":
        bad.mkdir()
    elif kind == "eps":
        bad.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 400 300\n")
    elif kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no pipes here")
        os.mkfifo(bad)
    for _ in range(2):
        sheet = Sheet([image(bad)], side=200).drawn()
    assert near(at(sheet, 6 + 20, 6 + 120), (190, 190, 190))
    assert not near(at(sheet, 6 + 75, 6 + 60), (190, 190, 190), 30)  # the mask is drawn all the same
    assert caplog.text.count("cannot be read") == 1
    assert str(bad) in caplog.text


def test_garbled_masks_and_odd_boxes_are_no_error() -> None:
    odd = image(None)
    odd["truth"][0]["rle"]["counts"] = "NaN"
    odd["truth"] += [{"box": [-1e8, 5, 1e8, -7], "label": "é\n中" * 40}, {"box": [1, 1, 1, 1], "label": ""}]
    odd["predictions"][0]["rle"]["size"] = [5, 5]
    assert encoded(Sheet([odd, image(None, width=1, height=1 << 20)]).drawn())[:2] == b"\xff\xd8"
    assert Sheet([]).drawn().size[0] > 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_says(tmp_path: Path, orientation: int) -> None:
    from losslog.detection.images import load_pixels

    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    turned = Image.fromarray(pixels)
    exif = turned.getexif()
    exif[0x0112] = orientation
    turned.save(tmp_path / "a.png", exif=exif)
    whole = load_pixels(tmp_path / "a.png")
    assert np.array_equal(opened(str(tmp_path / "a.png"), whole.shape[1::-1]), whole)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_whose_boxes_are_of_stored_pixels_are_drawn_as_they_are_stored(
    tmp_path: Path, orientation: int, make_run: Any
) -> None:
    down, across = np.mgrid[:30, :40]
    pixels = np.stack([8 * down, 6 * across, 4 * (down + across) // 2], axis=2).astype(np.uint8)
    stored = Image.fromarray(pixels)
    exif = stored.getexif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    told = {"id": 1, "path": str(tmp_path / "a.png"), "width": 40, "height": 30}
    assert np.array_equal(drawing.small({**told, "turned": False}, 40)[0], pixels)
    swapped = orientation in (5, 6, 7, 8)  # another shape when it is turned: nothing need be said
    assert np.array_equal(drawing.small(told, 40)[0], pixels) is (swapped or orientation == 1)
    run = make_run()
    run.log_images("val", [{**told, "turned": False}], thumbnails=True)
    run.close()
    (record,) = [each.data for each in records(run.dir) if each.hook == "on_images"]
    assert record["images"][0]["turned"] is False
    small = np.asarray(Image.open(run.dir / record["images"][0]["thumbnail"]), np.int64)
    assert small.shape == pixels.shape
    assert np.abs(small - pixels).mean() < np.abs(small - pixels[::-1]).mean() / 2
    with pytest.raises(TypeError, match="must be True or False"):
        make_run().log_images("val", [{**told, "turned": 1}])


def test_a_picture_of_another_shape_is_told_by_width_and_height(tmp_path: Path) -> None:
    stored = Image.new("RGB", (400, 100))
    exif = stored.getexif()
    exif[0x0112] = 6
    stored.save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(ValueError, match=r"is 100 x 400 \(width x height\): another picture"):
        opened(str(tmp_path / "a.jpg"), (50, 50))


@pytest.mark.parametrize("mode", ["L", "I;16", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_any_depth(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((HEIGHT, WIDTH), 900, np.uint16)).save(path)
    else:
        Image.new(mode, (WIDTH, HEIGHT)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(str(path), (200, 150)).shape == (150, 200, 3)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "progressive JPEG"])
def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: Any, kind: str) -> None:
    form = kind.split()[-1]
    Image.new("RGB", (400, 300)).save(tmp_path / "a", format=form, **({"progressive": True} if " " in kind else {}))
    monkeypatch.setattr(drawing, "MOST", 400 * 300 - 1)
    monkeypatch.setattr(drawing, "to_rgb", lambda file: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="400 x 300 pixels: 119999 are drawn at most"):
        drawing.opened(str(tmp_path / "a"), (40, 30))


def test_a_large_jpeg_is_reduced_while_it_is_decoded(tmp_path: Path, monkeypatch: Any) -> None:
    Image.new("RGB", (400, 300)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(drawing, "MOST", 400 * 300 - 1)
    assert drawing.opened(str(tmp_path / "a.jpg"), (40, 30)).shape == (30, 40, 3)


def test_a_file_is_decoded_once_and_once_more_when_it_has_changed(tmp_path: Path, monkeypatch: Any) -> None:
    path, decoded, real = str(tmp_path / "a.png"), [], drawing.to_rgb
    monkeypatch.setattr(drawing, "to_rgb", lambda file: decoded.append(1) or real(file))
    for grey in (10, 200):
        Image.new("L", (400, 300), grey).save(path)
        found = [drawing.opened(path, (40, 30)) for _ in range(3)]
        assert {int(each.max()) for each in found} == {grey}
        os.utime(path, ns=(grey, grey))
    assert len(decoded) == 2
    (tmp_path / "a.png").write_bytes(b"x")
    for _ in range(2):
        with pytest.raises(OSError, match="cannot identify"):
            drawing.opened(path, (40, 30))


def test_nothing_of_pillows_is_printed(tmp_path: Path, monkeypatch: Any, recwarn: Any) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30 - 1)
    assert drawing.opened(str(tmp_path / "a.png"), (40, 30)).shape == (30, 40, 3)
    assert not recwarn.list


def test_a_caption_says_what_is_wrong() -> None:
    about = image(None, mistakes={"missed": 2, "wrong_class": 1}, iou=0.5, loss={"a": 1.0, "mask": 2.5})
    assert caption(about) == "3 · 2 missed, 1 wrong class · IoU 0.50 · mask 2.5"


def test_thumbnails_are_small_once_an_image_and_in_the_run_folder(make_run: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (800, 600), GREEN).save(tmp_path / "data" / "1.png")
    run: losslog.Run = make_run()
    seen = {"id": 1, "path": "1.png", "width": 800, "height": 600}
    for _ in range(2):
        run.log_images("val", [seen, {**seen, "id": 2, "path": "gone.png"}], folder=tmp_path / "data", thumbnails=True)
    run.close()
    (file,) = (run.dir / "pictures").iterdir()
    with Image.open(file) as small:
        assert (small.size, small.format) == ((320, 240), "JPEG")
    first, second = (each.data["images"] for each in records(run.dir) if each.hook == "on_images")
    assert first == second
    assert [each.get("thumbnail") for each in first] == [f"pictures/{file.name}", None]


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_no_thumbnail_is_written_through_a_link(
    make_run: Any, tmp_path: Path, picture: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run: losslog.Run = make_run()
    (tmp_path / "elsewhere").mkdir()
    (run.dir / "pictures").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    run.log_images("val", [{"id": 1, "path": picture, "width": WIDTH, "height": HEIGHT}], thumbnails=True)
    run.close()
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "no thumbnails" in caplog.text
    assert [each.hook for each in records(run.dir)].count("on_images") == 1
