"""CUB-200-2011 (Wah et al., 2011), and any data set in its layout."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wsol.data.dataset import Box, Example, ImageDataset, Split
from wsol.data.names import path_below
from wsol.data.text_files import naming, number, read_lines, whole
from wsol.data.transforms import Transform


class CUB200(ImageDataset):
    """A data set in CUB's official layout, at either nesting level.

    Any subset of the classes works; labels count the classes of classes.txt in order of their ids.

    Args:
        root: The folder that holds images.txt, or one above it.
        split: "train", "test", or "val", which holds images out of the training split.
        transform, val_fraction: See `ImageDataset`.

    Raises:
        ValueError: a file is missing or malformed (file and line), or the split is empty.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: Split,
        *,
        transform: Transform | None = None,
        val_fraction: float = 0.0,
    ) -> None:
        folder = find_root(Path(root))
        classes, train, test = _read_layout(folder)
        super().__init__(
            folder,
            split,
            classes,
            train=train,
            test=test,
            val_fraction=val_fraction,
            images=folder / "images",
            upright=False,  # CUB's boxes were drawn on the stored pixels
            transform=transform,
        )


def find_root(folder: Path) -> Path:
    """Finds the folder with images.txt: `folder` itself or CUB_200_2011 once or twice below it."""
    name = "CUB_200_2011"
    for candidate in (folder, folder / name, folder / name / name):
        if (candidate / "images.txt").is_file():
            return candidate
    raise ValueError(f"no CUB_200_2011 data set at {folder}: there is no images.txt in it")


def _read_layout(root: Path) -> tuple[list[str], list[Example], list[Example]]:
    """Reads class names, the images for training, and the images for testing."""
    class_names = read_table(root / "classes.txt", 1, lambda fields: fields[0])
    paths = read_table(root / "images.txt", 1, lambda row: path_below(root / "images", row[0]))
    labels = read_table(root / "image_class_labels.txt", 1, lambda fields: whole(fields[0]))
    training = read_table(root / "train_test_split.txt", 1, _flag)
    boxes = read_table(root / "bounding_boxes.txt", 4, parse_box)
    order = {identity: label for label, identity in enumerate(sorted(class_names))}
    masks = next((m for m in (root, root.parent) if (m / "segmentations").is_dir()), None)
    if len(set(paths.values())) < len(paths):
        twice = next(path for path, count in Counter(paths.values()).items() if count > 1)
        raise ValueError(f"{root / 'images.txt'}: {twice} is listed under two ids")
    examples: dict[bool, list[Example]] = {True: [], False: []}
    for identity, path in paths.items():
        name = path.relative_to(root / "images").as_posix()
        for file, table in (
            ("image_class_labels.txt", labels),
            ("train_test_split.txt", training),
            ("bounding_boxes.txt", boxes),
        ):
            if identity not in table:
                raise ValueError(f"{root / file}: no line for image {identity} ({name})")
        kind = labels[identity]
        if kind not in order:
            raise ValueError(
                f"{root / 'classes.txt'}: no line for class {kind} of image {identity}"
            )
        mask = masks / "segmentations" / Path(name).with_suffix(".png") if masks else None
        example = Example(
            identity=identity,
            name=name,
            path=path,
            label=order[kind],
            boxes=(boxes[identity],),
            mask=mask if mask is not None and mask.is_file() else None,
        )
        examples[training[identity]].append(example)
    return [class_names[identity] for identity in order], examples[True], examples[False]


def read_table(path: Path, columns: int, parse: Callable[[list[str]], Any]) -> dict[int, Any]:
    """Reads lines `<id> <column> ...` into {id: parsed columns}. Raises ValueError if a line is
    malformed or an id is listed twice (file and line)."""
    table: dict[int, Any] = {}
    for row, line in read_lines(path):
        identity, *fields = line.split(maxsplit=1 if columns == 1 else -1)
        with naming(f"{path}, line {row}", line):
            if len(fields) != columns:
                raise ValueError(f"expected an id and {columns} value(s)")
            key, value = whole(identity), parse(fields)
            if key in table:
                raise ValueError(f"id {key} is listed twice")
        table[key] = value
    return table


def _flag(fields: list[str]) -> bool:
    if fields[0] not in ("0", "1"):
        raise ValueError("expected 1 (training) or 0 (test)")
    return fields[0] == "1"


def parse_box(fields: list[str]) -> Box:
    """Parses x, y, width and height into half-open (x0, y0, x1, y1)."""
    x, y, width, height = map(number, fields)
    if not (width > 0 and height > 0 and np.isfinite([x + width, y + height]).all()):
        raise ValueError("expected x y width height with a positive width and height")
    return x, y, x + width, y + height
