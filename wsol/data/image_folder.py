"""A user's own images: a plain folder of classes, with boxes for some images or for none."""

import csv
import os
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from wsol.data.dataset import Box, Example, ImageDataset, Split
from wsol.data.image_files import image_size
from wsol.data.inputs import find_photos, is_image, unread_photos
from wsol.data.names import KnownNames, same_names
from wsol.data.text_files import naming, number, read_lines
from wsol.data.transforms import Transform

BOXES = "boxes.csv"
HEADER = "image,x0,y0,x1,y1"
_SPLITS = ("train", "val", "test")
_OVERHANG = 1  # pixels by which rounding may carry a box out of its image
_Boxes = Mapping[str, Sequence[tuple[int, Box]]]  # image -> number of the line, box


class ImageFolder(ImageDataset):
    """A data set of images in `root`/train/<class>/ and `root`/test/<class>/, at any depth.

    Classes are the folders of train in sorted order. If there is no folder train, the images are
    for testing alone, and classes are the folders of the other splits. Images are found by
    `wsol.data.inputs.find_photos` and rotated by their EXIF tag. `root`/boxes.csv, if it exists,
    has a header with the columns image,x0,y0,x1,y1 (others are ignored) and a line for each box:
    the image's path below `root`, with any folders before it, and half-open pixels of the rotated
    image. Boxes are for evaluation. An image may have no box or several. A line without numbers is
    skipped.

    Args:
        root: The folder.
        split: "train", "test", or "val": the images of `root`/val if it has some, otherwise images
            held out of the training split.
        transform, val_fraction: See `ImageDataset`.

    Raises:
        ValueError: a class has no training images, an image is not in a class's folder, a line of
            boxes.csv is malformed or has an unknown image or a box outside of it, or the split is
            empty.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: Split,
        *,
        transform: Transform | None = None,
        val_fraction: float = 0.0,
    ) -> None:
        root = Path(root)
        classes, names = _read_layout(root)
        known = (name for found in names.values() for name, _ in found)
        identities = {name: number for number, name in enumerate(known, start=1)}
        boxes = _read_boxes(root / BOXES, identities) if (root / BOXES).exists() else {}
        examples = {
            part: [
                Example(
                    identity=identities[name],
                    name=name,
                    path=root / name,
                    label=label,
                    boxes=tuple(dict.fromkeys(box for _, box in boxes.get(name, ()))),
                )
                for name, label in found
            ]
            for part, found in names.items()
        }
        super().__init__(
            root, split, classes, **examples, val_fraction=val_fraction, transform=transform
        )
        _check_boxes(root / BOXES, self.examples, boxes)


def _read_layout(root: Path) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    """Finds class names, and for each split the images' names and labels."""
    has_training = (root / "train").is_dir()
    parts = ("train",) if has_training else _SPLITS
    classes = sorted({folder.name for part in parts for folder in _classes(root / part)})
    if has_training:
        require_two_classes(root / "train", classes)
    found: dict[str, list[tuple[str, int]]] = {split: [] for split in _SPLITS}
    unread = Counter[str]()
    for split in _SPLITS:
        for folder in _classes(root / split):
            labels = same_names(folder.name, classes)
            if not labels:
                raise ValueError(f"{folder} is a class without images in {root / 'train'}")
            files, others = find_photos(folder)
            unread += others
            if split == "train" and not files:
                hint = f"; {unread_photos(others)}" if others else ""
                raise ValueError(
                    f"there are no images in {folder}; every class needs some for training{hint}"
                )
            found[split] += [(_name(file, root), labels[0]) for file in files]
    if unread:
        warnings.warn(f"in {root}, {unread_photos(unread)}", stacklevel=4)
    return classes, found


def require_two_classes(folder: Path, classes: Sequence[str]) -> None:
    """Raises ValueError if the folder of training images has fewer than two classes."""
    if len(classes) < 2:
        raise ValueError(
            f"{folder} holds {len(classes)} folder(s) of images; a classifier needs at least two "
            "classes, a folder for each"
        )


def _classes(folder: Path) -> list[Path]:
    """Finds the class folders of a split, sorted; none if the split has no folder."""
    if not folder.is_dir():
        return []
    loose = [each for each in folder.iterdir() if is_image(each, folder)]
    if loose:
        raise ValueError(f"{min(loose)} lies in no class; every image belongs in a class's folder")
    return sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")


def _name(file: Path, root: Path) -> str:
    name = file.relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the name of {file} is no Unicode text; rename it") from error
    return name


def _read_boxes(file: Path, known: Collection[str]) -> _Boxes:
    """Reads the boxes of `known` images from boxes.csv."""
    lines = read_lines(file)
    _, head = next(lines, (1, ""))
    columns = _cells(head)
    wanted = HEADER.split(",")
    if any(columns.count(name) != 1 for name in wanted):
        raise ValueError(f"{file}, line 1: expected a header {HEADER}, not {head[:80]!r}")
    places = [columns.index(name) for name in wanted]
    names = KnownNames(known)
    boxes: dict[str, list[tuple[int, Box]]] = {}
    for row, line in lines:
        with naming(f"{file}, line {row}", line):
            cells = _cells(line)
            if len(cells) != len(columns):
                raise ValueError(f"expected {len(columns)} values, as in the header")
            image, *corners = (cells[place] for place in places)
            if not any(corners):
                continue
            name = names.find(image)
            if name is None:
                raise ValueError("there is no such image below train/, val/ or test/")
            x0, y0, x1, y1 = map(number, corners)
            if not (0 <= x0 < x1 and 0 <= y0 < y1):
                raise ValueError("expected 0 <= x0 < x1 and 0 <= y0 < y1")
            boxes.setdefault(name, []).append((row, (x0, y0, x1, y1)))
    return boxes


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line]), [])]


def _check_boxes(file: Path, examples: Sequence[Example], boxes: _Boxes) -> None:
    """Raises ValueError if a box extends outside of its image. The message names the line."""
    for example in examples:
        if example.name not in boxes:
            continue
        width, height = image_size(example.path, upright=True)
        for row, (_, _, x1, y1) in boxes[example.name]:
            if x1 > width + _OVERHANG or y1 > height + _OVERHANG:
                raise ValueError(
                    f"{file}, line {row}: the box ends at {x1:g}, {y1:g}, outside {example.name}, "
                    f"which has {width} x {height} pixels as viewers show it"
                )
