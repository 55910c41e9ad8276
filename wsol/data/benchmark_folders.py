"""The other benchmarks of weakly supervised localization, in the layouts that others publish.

ILSVRC and OpenImages30k with the published evaluator's text files; ILSVRC as it is distributed; and
any folders of classes with boxes in Pascal VOC's XML. Images and boxes are used as they are stored.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

from wsol.data.dataset import MOST_CLASSES, Box, Example, ImageDataset, Split
from wsol.data.image_folder import require_two_classes
from wsol.data.inputs import find_images, is_image
from wsol.data.names import path_below
from wsol.data.text_files import naming, number, read_lines, read_rows, whole
from wsol.data.transforms import Transform

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
Size = tuple[int, int]


class PublishedLayout(ImageDataset):
    """A data set with text files of the published evaluator (clovaai/wsolevaluation).

    The files of each split lie in `root`/metadata/train/, val/ and test/: image_ids.txt (a path
    below `root` in each line), class_labels.txt (`<id>,<label from 0>`), and optionally
    image_sizes.txt (`<id>,<width>,<height>`, may be empty) and localization.txt. Of the last, lines
    of boxes (`<id>,x0,y0,x1,y1`) are read; lines that name OpenImages' masks are not. A class is
    named by the folder of its training images if each class has its own folder, otherwise by its
    number.

    Args:
        root: The folder that holds metadata/ and the images.
        split: "train", "test", or "val": if there is no metadata/val/, images held out of "train".
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
        root = Path(root)
        self._metadata = root / "metadata"
        examples: dict[str, list[Example]] = {}
        count = 0
        for part in ("train", "val", "test"):
            examples[part] = _read_split(root, self._metadata / part, count)
            count += len(examples[part])
        super().__init__(
            root,
            split,
            _class_names(examples),
            **examples,
            val_fraction=val_fraction,
            upright=False,
            transform=transform,
        )

    def declared_sizes(self) -> dict[str, Size]:
        found: dict[str, Size] = {}
        for file in self._metadata.glob("*/image_sizes.txt"):
            for row, (name, *sides) in read_rows(file, 3):
                with naming(f"{file}, line {row}"):
                    width, height = map(whole, sides)
                found[name] = width, height
        return found


class VOCFolder(ImageDataset):
    """Folders of classes, with boxes in Pascal VOC's XML files.

    Images lie in `root`/train/<class>/, and in val/ and test/ (both optional) in a class's folder
    or directly in the split's folder. The boxes of train/heron/7.jpg are in
    Annotations/train/heron/7.xml. An image without such a file has no boxes. The class of an image
    that lies in no class's folder is the name of its objects in the XML file.

    The corners xmin, ymin, xmax, ymax are read as half-open pixels, as in the published evaluator's
    metadata of ILSVRC. Objects whose name is another class are left out.

    Args:
        root: The folder.
        split: "train", "test", or "val": if there are no images for it, some are held out of
            "train".
        transform, val_fraction: See `ImageDataset`.

    Raises:
        ValueError: there are fewer than two classes, a class's folder has no images, an image has
            no class or an unknown one, an XML file is malformed, or the split is empty.
    """

    image_folder: ClassVar[str] = "."
    box_folder: ClassVar[str] = "Annotations"
    folders: ClassVar[dict[str, str]] = {"train": "train", "val": "val", "test": "test"}

    def __init__(
        self,
        root: str | os.PathLike,
        split: Split,
        *,
        transform: Transform | None = None,
        val_fraction: float = 0.0,
    ) -> None:
        root = Path(root)
        images, self._boxes = root / self.image_folder, root / self.box_folder
        train = images / self.folders["train"]
        classes = sorted(each.name for each in train.glob("[!.]*/") if each.is_dir())
        require_two_classes(train, classes)
        labels = {name: label for label, name in enumerate(classes)}
        examples: dict[str, list[Example]] = {}
        count = 0
        for part, folder in self.folders.items():
            found = []
            for file in _images(images / folder):
                count += 1
                name = file.relative_to(images).as_posix()
                kind = self._class_of(file.relative_to(images / folder), name)
                if kind not in labels:
                    raise ValueError(f"{file} is of class {kind}, which has no folder in {train}")
                found.append(Example(count, name, file, labels[kind]))
            examples[part] = found
        super().__init__(
            root,
            split,
            classes,
            **examples,
            val_fraction=val_fraction,
            images=images,
            upright=False,
            transform=transform,
        )
        self.examples = [replace(each, boxes=self._boxes_of(each)) for each in self.examples]

    def declared_sizes(self) -> dict[str, Size]:
        sizes = {}
        for example in self.examples:
            file = self._xml(example.name)
            size = _parse(file).find("size") if file.is_file() else None
            if size is not None:
                with naming(f"{file}: size"):
                    sizes[example.name] = whole(_text(size, "width")), whole(_text(size, "height"))
        return sizes

    def _class_of(self, place: Path, name: str) -> str:
        if len(place.parts) > 1:
            return place.parts[0]
        file = self._xml(name)
        names = {kind for kind, _ in _read_objects(file)} if file.is_file() else set()
        if len(names) != 1:
            raise ValueError(
                f"the class of {name} is not known: it lies in no class's folder, and {file} has "
                f"objects of {len(names)} classes, not 1"
            )
        return names.pop()

    def _boxes_of(self, example: Example) -> tuple[Box, ...]:
        file, own = self._xml(example.name), self.classes[example.label]
        objects = _read_objects(file) if file.is_file() else ()
        boxes = [box for name, box in objects if name == own or name not in self.classes]
        return tuple(dict.fromkeys(boxes))

    def _xml(self, name: str) -> Path:
        return (self._boxes / name).with_suffix(".xml")


class ILSVRC(VOCFolder):
    """ILSVRC's localization data as it is distributed (Russakovsky et al., IJCV 2015).

    Images lie in `root`/Data/CLS-LOC/train/<synset>/ and `root`/Data/CLS-LOC/val/, XML files in
    `root`/Annotations/CLS-LOC/. The validation images of the challenge are the test split, as in
    the field. Validation images are held out of the training images. See `VOCFolder`.
    """

    image_folder = "Data/CLS-LOC"
    box_folder = "Annotations/CLS-LOC"
    folders: ClassVar[dict[str, str]] = {"train": "train", "test": "val"}


def _read_split(root: Path, folder: Path, count: int) -> list[Example]:
    """Reads the images of one split, whose numbers follow `count`. None if it has no files."""
    if not (folder / "image_ids.txt").is_file():
        return []
    names: dict[str, Path] = {}
    for row, line in read_lines(folder / "image_ids.txt"):
        with naming(f"{folder / 'image_ids.txt'}, line {row}"):
            if line in names:
                raise ValueError(f"image {line} is listed twice")
            names[line] = path_below(root, line)
    labels: dict[str, int] = {}
    for row, (name, text) in read_rows(folder / "class_labels.txt", 2):
        with naming(f"{folder / 'class_labels.txt'}, line {row}"):
            label = whole(text)
            if not 0 <= label < MOST_CLASSES:
                raise ValueError(f"label {label} is not in 0 to {MOST_CLASSES - 1}")
        labels[name] = label
    boxes: dict[str, list[Box]] = {name: [] for name in names}
    file = folder / "localization.txt"
    for row, (name, *cells) in read_rows(file, 3, 5) if file.is_file() else ():
        if name in boxes and len(cells) == 4:
            with naming(f"{file}, line {row}"):
                boxes[name].append(_box(*map(number, cells)))
    examples = []
    for identity, (name, path) in enumerate(names.items(), start=count + 1):
        if name not in labels:
            raise ValueError(f"{folder / 'class_labels.txt'}: no line for image {name}")
        unique = tuple(dict.fromkeys(boxes[name]))
        examples.append(Example(identity, name, path, labels[name], unique))
    return examples


def _class_names(examples: dict[str, list[Example]]) -> list[str]:
    labels = range(max((each.label for part in examples.values() for each in part), default=-1) + 1)
    pairs = {(example.label, example.path.parent.name) for example in examples["train"]}
    folders = dict(pairs)
    if len(pairs) == len(labels) == len(folders) == len(set(folders.values())):
        return [folders[label] for label in labels]
    return [*map(str, labels)]


def _images(folder: Path) -> list[Path]:
    """Finds a split's images, sorted, also in folders that are links. None if it is missing."""
    found = []
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        if each.is_dir() and not each.name.startswith("."):
            found += find_images(each)
        elif is_image(each, folder):
            found.append(each)
    return found


def _read_objects(file: Path) -> list[tuple[str, Box]]:
    """Reads the name and the box of each object in an XML file of Pascal VOC's form."""
    objects = []
    for found in _parse(file).iter("object"):
        with naming(str(file)):
            corners = (number(_text(found, f"bndbox/{corner}")) for corner in _CORNERS)
            objects.append((_text(found, "name"), _box(*corners)))
    return objects


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ValueError(f"cannot read {file}: {error}") from error


def _text(element: ElementTree.Element, path: str) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"an entry {element.tag} has no {path}")
    return text


def _box(x0: float, y0: float, x1: float, y1: float) -> Box:
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"box {x0:g},{y0:g},{x1:g},{y1:g}: expected x0 < x1 and y0 < y1")
    return x0, y0, x1, y1
