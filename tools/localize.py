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
from tqdm import tqdm

from wsol.cli import Parser, run
from wsol.coco import coco_dataset
from wsol.data.image import read_image
from wsol.drawing import overlay
from wsol.localizer import Localization, Localizer

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def main() -> int:
    parser = Parser(prog="localize.py", description=__doc__)
    parser.add_argument("model", help="run folder or model folder")
    parser.add_argument("images", nargs="+", help="image files or folders of them")
    parser.add_argument("--output", type=str, required=True, help="folder for the results")
    parser.add_argument(
        "--threshold",
        type=float,
        default=None,
        help="share of the heatmap's maximum; default: the one evaluation chose, else 0.2",
    )
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--device", type=str, default="cpu")
    settings = parser.parse_args()
    files = find_images([Path(image) for image in settings.images])
    localizer = Localizer.load(settings.model, threshold=settings.threshold, device=settings.device)
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    found: list[tuple[Path, Localization]] = []
    unreadable: list[str] = []
    root = Path(os.path.commonpath([file.parent.resolve() for file in files]))
    for start in tqdm(range(0, len(files), settings.batch_size), unit="batch"):
        readable: dict[Path, np.ndarray] = {}
        for file in files[start : start + settings.batch_size]:
            try:
                readable[file] = read_image(file, upright=True)
            except ValueError as error:
                unreadable.append(str(error))
        for (file, pixels), place in zip(
            readable.items(), localizer.predict(readable.values()), strict=True
        ):
            name = file.resolve().relative_to(root).with_suffix("")
            _write_png(output / "overlays" / f"{name}.png", overlay(pixels, place))
            heatmap = cv2.resize(place.heatmap, place.size, interpolation=cv2.INTER_LINEAR)
            _write_png(output / "heatmaps" / f"{name}.png", (heatmap * 255).round())
            found.append((file, place))
    if not found:
        raise ValueError(f"none of {len(files)} image(s) could be read: {unreadable[0]}")
    names = localizer.model.class_names or map(str, range(localizer.model.backbone.num_classes))
    dataset = coco_dataset([(str(file), place) for file, place in found], list(names))
    partial = output / ".boxes.json.partial"
    partial.write_text(json.dumps(dataset))
    os.replace(partial, output / "boxes.json")
    print(f"{len(found)} image(s) localized at threshold {localizer.threshold:g}: {output}")
    for line in unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    return 1 if unreadable else 0


def find_images(sources: list[Path]) -> list[Path]:
    """Files as they are, folders searched for images, each file once."""
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(f for f in source.rglob("*") if f.suffix.lower() in _SUFFIXES)
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
