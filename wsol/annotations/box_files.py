"""The files that localize.py writes: boxes.json, boxes.csv, overlays and heatmaps."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from robust_training.atomic_io import write_texts
from wsol.annotations.coco_writing import ROOT, coco_dataset
from wsol.localizer.localization import Localization

_COLUMNS = ("image", "rank", "x0", "y0", "x1", "y1", "label", "class_name", "score")


def write_boxes(
    found: Iterable[Localization],
    class_names: Sequence[str],
    output: str | os.PathLike,
    root: str | os.PathLike,
) -> int:
    """Write boxes of image files as boxes.json (COCO, with scores) and boxes.csv. Return the
    number of images.

    Args:
        found: Boxes of image files, as `Localizer.predict` gives them; taken one after the other.
        class_names: A name for each label.
        output: The folder for both files. It is made if it is missing.
        root: The folder that holds all image files. File names in boxes.json are relative to it,
            and `info.root` there names it. boxes.csv has the paths as they were given.
    """
    table = io.StringIO()
    named = ((_name(place.path, root), place) for place in _with_lines(found, table))
    boxes = {"info": {ROOT: os.path.abspath(root)}, **coco_dataset(named, class_names)}
    write_texts(Path(output), {"boxes.json": json.dumps(boxes), "boxes.csv": table.getvalue()})
    return len(boxes["images"])


def with_pictures(
    found: Iterable[Localization],
    output: str | os.PathLike,
    root: str | os.PathLike,
    on_failed: Callable[[ValueError], None],
) -> Iterator[Localization]:
    """Yield `found` again; write an overlay and a heatmap (if there is one) as PNG for each.

    Args:
        output: The pictures' folder; they lie below overlays/ and heatmaps/.
        root: The folder that holds all image files; pictures have the same paths relative to it.
        on_failed: Called with an error that names the image if a picture cannot be written, for
            example because its name would be too long. The localization is yielded anyway.
    """
    for place in found:
        name = f"{_name(place.path, root)}.png"  # a.jpg and a.png stay apart
        try:
            # read again: to keep a batch of photos would need more memory than the network
            write_png(Path(output, "overlays", name), np.asarray(place.draw()))
            if place.heatmap is not None:
                heatmap = (place.full_heatmap() * 255).round()
                write_png(Path(output, "heatmaps", name), heatmap)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            on_failed(ValueError(f"the pictures of {place.path}: {reason}"))
        yield place


def _name(file: Path, root: str | os.PathLike) -> str:
    """A file's path below `root`, with slashes. Links are not followed."""
    return Path(os.path.abspath(file)).relative_to(os.path.abspath(root)).as_posix()


def _with_lines(found: Iterable[Localization], table: io.StringIO) -> Iterator[Localization]:
    """Write a line for each box. An image without a box gets one line without corners."""
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for place in found:
        boxes = zip(place.boxes, place.scores, strict=True) if place.boxes else [((), place.score)]
        for rank, (box, score) in enumerate(boxes, start=1):
            corners = [round(value, 2) for value in box] or [""] * 4
            writer.writerow(
                [place.path, rank, *corners, place.label, place.class_name, f"{score:.6f}"]
            )
        yield place


def write_png(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    try:
        file.write_bytes(cv2.imencode(".png", bgr.astype(np.uint8))[1].tobytes())
    except OSError:  # for example a full disk: no half of a picture stays
        with suppress(OSError):
            file.unlink()
        raise
