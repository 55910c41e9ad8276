"""Boxes for images: `python tools/localize.py RUN IMAGE_OR_FOLDER ... --output DIR`.

Writes DIR/boxes.json (a COCO data set whose annotations carry scores), and for each image an
overlay and a heatmap as PNG. An image that cannot be read is listed at the end (exit status 1).
"""

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from tqdm import tqdm

from robust_training.files import write_text
from wsol.cli import Parser, find_device, run
from wsol.coco import coco_dataset
from wsol.data.image import read_image
from wsol.drawing import overlay
from wsol.localizer import Localization, Localizer

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def main() -> int:
    parser = Parser(prog="localize.py", description=__doc__)
    parser.add_argument("model", help="run, model folder, .onnx, .pt2 or hub id")
    parser.add_argument("images", nargs="+", help="image files or folders of them")
    parser.add_argument("--output", type=str, required=True, help="folder for the results")
    parser.add_argument(
        "--threshold",
        type=ClosedUnitInterval | None,
        default=None,
        help="share of the heatmap's maximum; default: the one evaluation chose, else 0.2",
    )
    parser.add_argument("--batch_size", type=PositiveInt, default=32)
    parser.add_argument("--device", type=str, default="cpu")
    settings = parser.parse_args()
    output = Path(settings.output)
    files = find_images([Path(image) for image in settings.images], without=output)
    device = find_device(settings.device)
    localizer = Localizer.load(settings.model, threshold=settings.threshold, device=device)
    output.mkdir(parents=True, exist_ok=True)
    found: list[tuple[str, Localization]] = []
    unreadable: list[str] = []
    root = Path(os.path.commonpath([file.parent.resolve() for file in files]))
    bar = tqdm(total=len(files), unit="image")
    for start in range(0, len(files), settings.batch_size):
        readable: dict[Path, np.ndarray] = {}
        for file in files[start : start + settings.batch_size]:
            try:
                readable[file] = read_image(file, upright=True)
            except ValueError as error:
                unreadable.append(str(error))
            bar.update()
        places = localizer.predict(readable.values(), batch_size=settings.batch_size)
        for (file, pixels), place in zip(readable.items(), places, strict=True):
            name = f"{file.resolve().relative_to(root)}.png"  # a.jpg and a.png stay apart
            _write_png(output / "overlays" / name, overlay(pixels, place))
            heatmap = cv2.resize(place.heatmap, place.size, interpolation=cv2.INTER_LINEAR)
            _write_png(output / "heatmaps" / name, (heatmap * 255).round())
            found.append((str(file), place))
    bar.close()
    names = localizer.model.class_names or map(str, range(localizer.model.backbone.num_classes))
    write_text(output / "boxes.json", json.dumps(coco_dataset(found, list(names))))
    print(f"{len(found)} image(s) localized at threshold {localizer.threshold:g}: {output}")
    for line in unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    return 1 if unreadable else 0


def find_images(sources: list[Path], *, without: Path) -> list[Path]:
    """Files as they are, folders searched for images but not in `without`, each file once."""
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(
                file
                for file in source.rglob("*")
                if file.suffix.lower() in _SUFFIXES
                and not file.resolve().is_relative_to(without.resolve())
            )
            if not inside:
                raise ValueError(f"there are no images in {source}")
            files += inside
        elif source.exists():
            files.append(source)
        else:
            raise ValueError(f"there is no image or folder {source}")
    return list(dict.fromkeys(files))


def _write_png(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    file.write_bytes(cv2.imencode(".png", bgr.astype(np.uint8))[1].tobytes())


if __name__ == "__main__":
    run(main)
