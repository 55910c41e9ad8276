"""CUB-200-2011 (Wah et al., 2011), and any data set in its layout."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import albumentations as A
import numpy as np
import torch
from torch.utils.data import Dataset

from wsol.boxes import rescale
from wsol.data.cache import cached_images, load_images
from wsol.data.image import read_gray, read_image
from wsol.data.text import inside, number, read_lines, whole
from wsol.data.transforms import eval_transform

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Example:
    """One image of a data set.

    Attributes:
        identity: The data set's own number of the image.
        name: Its path below `images/`.
        box: Half-open (x0, y0, x1, y1) in pixels of the file.
        mask: Segmentation file, where there is one.
    """

    identity: int
    name: str
    path: Path
    label: int
    box: tuple[float, float, float, float]
    mask: Path | None


class Images(Dataset):
    """Images with labels and boxes.

    Items are dicts: `image` float32 (3,H,W) in [0,1], `label`, `box` float32 (4,) half-open xyxy in
    the item's own pixels (zeros once a crop has lost it), `size` (width, height) of the file, and
    `index` into `examples`.

    Args:
        examples: What there is.
        transform: From wsol.data.transforms; None keeps the file's size.
        cache: Folder that keeps the images decoded and resized to `cache_size`, which the transform
            then starts from; None decodes the files every time.
        cache_size: Side in pixels, that which the transform would resize to first.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        transform: A.Compose | None = None,
        cache: str | os.PathLike | None = None,
        cache_size: int | None = None,
    ) -> None:
        self.examples = examples
        self.transform = transform
        self._cache: Path | None = None
        if cache is not None and cache_size is not None:
            files = [example.path for example in examples]
            what = f"resized to {cache_size}"
            self._cache = cached_images(cache, files, partial(_resized, size=cache_size), what)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.examples[index]
        if self._cache is None:
            pixels = read_image(example.path)
            size = (pixels.shape[1], pixels.shape[0])
        else:
            record = load_images(self._cache)[index]
            pixels, size = record["image"], tuple(record["size"].tolist())
        box = rescale([example.box], size, pixels.shape[1::-1])
        if self.transform is not None:
            # Drawn from PyTorch's generator, so that one seed decides everything in every worker.
            self.transform.set_random_seed(int(torch.randint(2**31, ())))
            changed = self.transform(image=pixels, bboxes=box)
            pixels, box = changed["image"], changed["bboxes"]
        return {
            "image": torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255,
            "label": example.label,
            "box": torch.tensor(box[0] if len(box) else [0.0] * 4, dtype=torch.float32),
            "size": torch.tensor(size),
            "index": index,
        }

    def name(self, index: int) -> str:
        """What the data set calls an image."""
        return self.examples[index].name


class CUB200(Images):
    """Images, labels and boxes in CUB's official layout, at either nesting level.

    Any subset of the classes works; labels count the classes of classes.txt in order of their ids.

    Args:
        root: The folder that holds images.txt, or one above it.
        split: "train", "test", or "val": images held out of the training split by `val_share`.
        transform, cache, cache_size: As for `Images`.
        val_share: Share of each class's training images that "val" takes away from "train".

    Raises:
        ValueError: a file is missing or malformed (file and line), or the split is empty.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: Split,
        *,
        transform: A.Compose | None = None,
        val_share: float = 0.0,
        cache: str | os.PathLike | None = None,
        cache_size: int | None = None,
    ) -> None:
        self.root = find_root(Path(root))
        self.split = split
        self.classes, everything = _read_layout(self.root)
        examples = _select(everything, split, val_share)
        if not examples:
            hint = "; give a val_share above 0" if split == "val" else ""
            raise ValueError(f"the {split} split of {self.root} is empty{hint}")
        super().__init__(examples, transform=transform, cache=cache, cache_size=cache_size)

    def mask(self, index: int) -> np.ndarray:
        """bool (H,W) in the file's own size: where the object is (mask > 127)."""
        example = self.examples[index]
        if example.mask is None:
            raise ValueError(f"{example.name} has no segmentation mask")
        return read_gray(example.mask) > 127


def _resized(file: Path, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    pixels = read_image(file)
    small = eval_transform(size)(image=pixels, bboxes=[])["image"]
    return small, (pixels.shape[1], pixels.shape[0])


def find_root(folder: Path) -> Path:
    """The folder with images.txt: `folder` itself or CUB_200_2011 once or twice below it."""
    name = "CUB_200_2011"
    for candidate in (folder, folder / name, folder / name / name):
        if (candidate / "images.txt").is_file():
            return candidate
    raise ValueError(f"no CUB_200_2011 data set at {folder}: there is no images.txt in it")


def _read_layout(root: Path) -> tuple[list[str], list[tuple[Example, bool]]]:
    """Class names, and every example with whether it is for training."""
    class_names = read_table(root / "classes.txt", 1, lambda fields: fields[0])
    paths = read_table(root / "images.txt", 1, lambda fields: inside(root / "images", fields[0]))
    labels = read_table(root / "image_class_labels.txt", 1, lambda fields: whole(fields[0]))
    training = read_table(root / "train_test_split.txt", 1, _flag)
    boxes = read_table(root / "bounding_boxes.txt", 4, parse_box)
    order = {identity: label for label, identity in enumerate(sorted(class_names))}
    masks = next((m for m in (root, root.parent) if (m / "segmentations").is_dir()), None)
    if len(set(paths.values())) < len(paths):
        twice = next(path for path, count in Counter(paths.values()).items() if count > 1)
        raise ValueError(f"{root / 'images.txt'}: {twice} stands there under two ids")
    examples = []
    for identity, path in paths.items():
        name = path.relative_to(root / "images").as_posix()
        for file, table in (
            ("image_class_labels.txt", labels),
            ("train_test_split.txt", training),
            ("bounding_boxes.txt", boxes),
        ):
            if identity not in table:
                raise ValueError(f"{root / file}: no line for image {identity} ({name})")
        if labels[identity] not in order:
            raise ValueError(
                f"{root / 'classes.txt'}: no line for class {labels[identity]} of image {identity}"
            )
        mask = masks / "segmentations" / Path(name).with_suffix(".png") if masks else None
        example = Example(
            identity=identity,
            name=name,
            path=path,
            label=order[labels[identity]],
            box=boxes[identity],
            mask=mask if mask is not None and mask.is_file() else None,
        )
        examples.append((example, training[identity]))
    return [class_names[identity] for identity in sorted(class_names)], examples


def read_table(path: Path, columns: int, parse: Callable[[list[str]], Any]) -> dict[int, Any]:
    """`<id> <column> ...` lines -> {id: parsed columns}.

    Raises:
        ValueError: a line is malformed or an id stands there twice (file and line).
    """
    table: dict[int, Any] = {}
    for row, line in read_lines(path):
        identity, *fields = line.split(maxsplit=1 if columns == 1 else -1)
        try:
            if len(fields) != columns:
                raise ValueError(f"expected an id and {columns} value(s)")
            key, value = whole(identity), parse(fields)
        except ValueError as error:
            raise ValueError(f"{path}, line {row}: {error}: {line[:80]!r}") from error
        if key in table:
            raise ValueError(f"{path}, line {row}: id {key} stands there twice")
        table[key] = value
    return table


def _flag(fields: list[str]) -> bool:
    if fields[0] not in ("0", "1"):
        raise ValueError("expected 1 (training) or 0 (test)")
    return fields[0] == "1"


def parse_box(fields: list[str]) -> tuple[float, float, float, float]:
    """x, y, width and height -> half-open (x0, y0, x1, y1)."""
    x, y, width, height = map(number, fields)
    if not (width > 0 and height > 0 and np.isfinite([x + width, y + height]).all()):
        raise ValueError("expected x y width height with a positive width and height")
    return x, y, x + width, y + height


def _select(everything: list[tuple[Example, bool]], split: Split, share: float) -> list[Example]:
    if split not in ("train", "val", "test"):
        raise ValueError(f'split must be "train", "val" or "test", not {split!r}')
    if not 0 <= share < 1:
        raise ValueError(f"val_share must be at least 0 and below 1, not {share}")
    if split == "test":
        return [example for example, is_training in everything if not is_training]
    training = [example for example, is_training in everything if is_training]
    held_out: set[int] = set()
    rng = np.random.default_rng(0)  # one fixed split, whatever the seed of a run
    for label in sorted({example.label for example in training}):
        members = [example.identity for example in training if example.label == label]
        held_out.update(rng.permutation(members)[: round(share * len(members))].tolist())
    return [example for example in training if (example.identity in held_out) == (split == "val")]
