"""Makes the pictures of docs/images.md and of wrong labels: what each backend shows of the same images.

    losslog demo && losslog train --data fruitsnuts --epochs 2 --thumbnails ...   # two runs
    python scripts/image_pictures.py DEMO-RUN REAL-RUN         # run folders; delivered anew to backends on loopback

Needs chromium and the packages of the `dev` extra. Look at what it made before you commit it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from docs_pictures import free_port, server, shoot
from PIL import Image, ImageDraw

import losslog
from losslog.detection import CocoDataset, collate, write_shapes
from losslog.detection.chips import colours, write
from losslog.detection.labels import log
from losslog.detection.sheets import sheet_of
from losslog.history import records

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "img"


def keep(image: Image.Image, name: str, width: int = 1000) -> None:
    """Save it small."""
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image.convert("RGB").save(IMAGES / f"{name}.jpg", quality=80, optimize=True)
    print(f"{name}.jpg: {(IMAGES / f'{name}.jpg').stat().st_size // 1000} kB")


def replayed(run: Path, to: str, *options: str) -> None:
    """Deliver a run to backends."""
    line = [sys.executable, "-m", "losslog", "replay", str(run), "--to", to, "--from-start"]
    subprocess.run([*line, *(part for each in options for part in ("-o", each))], check=True)


def page(url: str, size: tuple[int, int], ready: str, script: str, pause: float) -> Image.Image:
    """What a browser shows."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        shoot(url, Path(file.name), size, ready, script, pause)
        return Image.open(file.name).convert("RGB")


def tensorboard(run: Path, work: Path) -> None:
    """The IMAGES page."""
    replayed(run, "tensorboard", f"tensorboard.log_dir={work / 'tb' / run.parent.name}")
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(work / "tb"), "--host", "127.0.0.1",
               "--port", str(port), "--samples_per_plugin", "images=100"]  # fmt: skip
    with server(command, work, port, "/data/runs") as url:
        time.sleep(8)
        shown = page(f"{url}/#images", (1260, 520), "true", "", 12)
        keep(shown, "images-tensorboard", 1100)


def mlflow(run: Path, work: Path, epoch: int) -> None:
    """A sheet among the artifacts."""
    from mlflow import MlflowClient

    port = free_port()
    store = f"sqlite:///{work}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--artifacts-destination",
               str(work / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    with server(command, work, port, "/health") as url:
        replayed(run, "mlflow", f"mlflow.tracking_uri={url}", "mlflow.experiment=shapes")
        client = MlflowClient(tracking_uri=url)
        (found,) = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
        files = [each.path for each in client.list_artifacts(found.info.run_id, "images")]
        (path,) = [each for each in files if f"val_hardest+step+{epoch}+" in each and each.endswith(".png")]
        place = f"{url}/#/experiments/{found.info.experiment_id}/runs/{found.info.run_id}/artifacts/{path}"
        shown = page(place, (1960, 1000), "true", "", 25)
        keep(shown.crop((250, 123, 1445, 716)), "images-mlflow", 1100)


def wandb(run: Path, epoch: int) -> None:
    """A sheet as it lies in the files that `wandb sync` uploads, with their boxes of predictions and masks."""
    os.environ["WANDB_MODE"] = "offline"
    replayed(run, "wandb", "wandb.mode=offline")
    file = max(run.glob("wandb/offline-run-*/*.wandb"), key=lambda each: each.stat().st_mtime)
    line = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [json.loads(each).get("history", {}).get("item", {}) for each in lines if each.strip()]
    (row,) = [each for each in rows if each.get("epoch") == epoch and "images/val_hardest.path" in each]
    files = file.parent / "files"
    sheet = Image.open(files / row["images/val_hardest.path"]).convert("RGB")
    boxes = json.loads((files / row["images/val_hardest.boxes.predictions.path"]).read_text("utf-8"))
    shades = colours(boxes["class_labels"].values())
    mask = Image.open(files / row["images/val_hardest.masks.predictions.path"]).convert("L")
    for number, name in boxes["class_labels"].items():
        over = Image.blend(sheet, Image.new("RGB", sheet.size, shades[name]), 0.45)
        sheet.paste(over, mask=mask.point([255 * (value == int(number)) for value in range(256)]))
    draw, words = ImageDraw.Draw(sheet), []
    for each in boxes["box_data"]:
        corners = [each["position"][key] for key in ("minX", "minY", "maxX", "maxY")]
        shade = shades[boxes["class_labels"][str(each["class_id"])]]
        draw.rectangle(corners, outline=shade, width=2)
        words.append((corners, [(each["box_caption"], shade)]))
    write(sheet, words)
    keep(sheet, "images-wandb")


def report(run: Path, work: Path, name: str) -> None:
    """The images of the report."""
    source = work / f"{name}.html"
    subprocess.run([sys.executable, "-m", "losslog", "report", str(run), "-o", str(source)], check=True)
    script = "document.querySelector('.images').closest('section').scrollIntoView(); scrollBy(0, -70)"
    keep(page(source.as_uri(), (1160, 720), "!!document.querySelector('.images canvas')", script, 2), name)


def drawn(run: Path, name: str, epoch: int, out: str) -> None:
    """A sheet, as the follower draws it."""
    (data,) = [each.data for each in records(run) if each.hook == "on_images" and each.data["name"] == name
               and each.data["epoch"] == epoch]  # fmt: skip
    images = [{**each, "path": None, "thumbnail": str(run / each["thumbnail"])} for each in data["images"]]
    sheet = sheet_of(data["split"], name, epoch, images)
    assert sheet is not None
    keep(sheet.drawn(), out, 1200)


def swapped(image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A transform's fault."""
    return image, target | {"boxes": target["boxes"][:, [1, 0, 3, 2]]}


def shifted(image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Another."""
    return image, target | {"masks": torch.roll(target["masks"], 10, dims=2)}


def permuted(image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Another."""
    return image, target | {"labels": target["labels"] % 3 + 1}


def wrong_labels(work: Path) -> None:
    """The sheet at the start of runs whose transform is wrong."""
    folder = write_shapes(work / "shapes", train=12, val=1)
    for transform in (swapped, shifted, permuted):
        data = CocoDataset(folder / "images", folder / "annotations_train.json", transform=transform)
        with losslog.Run(transform.__name__, work / "runs", plugins="console") as run:
            log(run, [collate([data[place] for place in (0, 1, 3, 4, 5)])], data)
        drawn(run.dir, "labels", 1, f"labels_{transform.__name__}")


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("real", type=Path)
    parser.add_argument("--only", default="tensorboard,mlflow,wandb,report,labels")
    options = parser.parse_args()
    demo, real = options.demo.resolve(), options.real.resolve()
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", LOSSLOG_FOLLOWER="0")
    last = {run: max(each.data["epoch"] for each in records(run) if each.hook == "on_images") for run in (demo, real)}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        if "labels" in options.only:
            wrong_labels(work)
        if "report" in options.only:
            report(demo, work, "images-report")
            drawn(real, "hardest", last[real], "images-real")
        if "wandb" in options.only:
            wandb(real, last[real])
        if "tensorboard" in options.only:
            tensorboard(demo, work)
        if "mlflow" in options.only:
            mlflow(demo, work, last[demo])


if __name__ == "__main__":
    main()
