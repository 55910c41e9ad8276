"""Boxes for images: `python tools/localize.py RUN IMAGE_OR_FOLDER ... --output DIR`.

Writes DIR/boxes.json (a COCO data set whose annotations carry scores), DIR/boxes.csv, and for each
image an overlay and a heatmap as PNG. RUN is a run folder, any timm model folder, or a detector's
(of train_detector.py), which has no heatmaps; a Regressor knows no classes and calls all boxes
"object". An image that cannot be read is left out and listed at the end (exit status 1; 0 where all
were localized, 2 after a mistake that stops the command).
"""

import csv
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from tqdm import tqdm

from robust_training.atomic_io import write_texts
from wsol.annotations.coco_writing import coco_dataset
from wsol.cli.parser import Parser, find_device, output_folder, printable, run
from wsol.data.inputs import find_images, read_pixels
from wsol.heatmaps.methods import NAMES
from wsol.localizer.localization import Localization
from wsol.localizer.localizer import Localizer
from wsol.localizer.overlay import overlay


def main() -> int:
    parser = Parser(prog="localize.py", description=__doc__)
    parser.add_argument("model", help="run, model folder, detector, .onnx, .pt2 or hub id")
    parser.add_argument("images", nargs="+", help="image files or folders of them")
    parser.add_argument("--output", type=str, required=True, help="folder for the results")
    parser.add_argument(
        "--method", type=str | None, default=None, help=f"default: gradient; {NAMES}"
    )
    parser.add_argument(
        "--threshold",
        type=ClosedUnitInterval | None,
        default=None,
        help="share of the heatmap's maximum; default: the one evaluation chose, else 0.2",
    )
    parser.add_argument(
        "--label", type=str | None, default=None, help="class to look for; default: the predicted"
    )
    parser.add_argument("--boxes", type=PositiveInt, default=1, help="at most, in each image")
    parser.add_argument("--pictures", type=bool, default=True, help="overlays and heatmaps")
    parser.add_argument("--batch_size", type=PositiveInt, default=32)
    parser.add_argument("--device", type=str, default="cpu")
    settings = parser.parse_args()
    output = output_folder(settings.output)
    files = _find_files([Path(image) for image in settings.images], without=output)
    localizer = Localizer.load(
        settings.model,
        method=settings.method,
        threshold=settings.threshold,
        device=find_device(settings.device),
    )
    skipped: list[ValueError] = []
    table = io.StringIO()
    started = time.perf_counter()
    with tqdm(files, unit="image") as bar:
        found = localizer.predict(
            bar,
            labels=settings.label,
            boxes=settings.boxes,
            batch_size=settings.batch_size,
            on_unreadable=skipped.append,
        )
        places = _draw(found, output, files) if settings.pictures else found
        named = ((str(place.path), place) for place in _write_rows(places, table))
        boxes = coco_dataset(named, localizer.class_names)  # takes one image after the other
    write_texts(output, {"boxes.json": json.dumps(boxes), "boxes.csv": table.getvalue()})
    count = len(boxes["images"])
    rate = count / (time.perf_counter() - started)
    at = f" at threshold {localizer.threshold:g}" if isinstance(localizer, Localizer) else ""
    print(f"{count} image(s) localized{at}, {len(skipped)} skipped, {rate:.3g} images/s: {output}")
    for error in skipped:
        print(f"skipped: {printable(str(error))}", file=sys.stderr)
    return 1 if skipped else 0


def _find_files(sources: list[Path], *, without: Path) -> list[Path]:
    """Files as they are, folders searched for images but not in `without`, each file once."""
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = find_images(source)
            files += [f for f in inside if not f.resolve().is_relative_to(without.resolve())]
        elif source.exists():
            files.append(source)
        else:
            raise ValueError(f"there is no image or folder {source}")
    if not files:
        raise ValueError(f"all images lie in {without}, the folder for the results")
    return list(dict.fromkeys(files))


def _draw(
    places: Iterable[Localization], output: Path, files: list[Path]
) -> Iterator[Localization]:
    root = Path(os.path.commonpath([file.parent.resolve() for file in files]))
    for place in places:
        name = f"{place.path.resolve().relative_to(root)}.png"  # a.jpg and a.png stay apart
        # read again: a batch of photos would hold more memory than the network
        _write_png(output / "overlays" / name, overlay(read_pixels(place.path), place))
        if place.heatmap is not None:
            _write_png(output / "heatmaps" / name, (place.full_heatmap() * 255).round())
        yield place


def _write_rows(places: Iterable[Localization], table: io.StringIO) -> Iterator[Localization]:
    """One line for each box, and one without corners for an image that has none."""
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "rank", "x0", "y0", "x1", "y1", "label", "class", "score"])
    for place in places:
        found = zip(place.boxes, place.scores, strict=True) if place.boxes else [((), place.score)]
        for rank, (box, score) in enumerate(found, start=1):
            corners = [round(value, 2) for value in box] or [""] * 4
            writer.writerow(
                [place.path, rank, *corners, place.label, place.class_name, f"{score:.6f}"]
            )
        yield place


def _write_png(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    file.write_bytes(cv2.imencode(".png", bgr.astype(np.uint8))[1].tobytes())


if __name__ == "__main__":
    run(main)
