"""Data sets of labelled images: the base class that every layout's reader extends."""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import Dataset

from wsol.boxes.geometry import rescale
from wsol.data.image_files import read_gray, read_image
from wsol.data.names import composed, same_names
from wsol.data.transforms import Transform, network_input

Split = Literal["train", "val", "test"]
Box = tuple[float, float, float, float]
MOST_CLASSES = 1_000_000  # in a data set; a larger label is a mistake


class EmptySplitError(ValueError):
    """A data set has no images in a split."""


@dataclass(frozen=True)
class Example:
    """One image of a data set.

    Attributes:
        identity: The data set's own number of the image; unique.
        name: The image's path below `ImageDataset.images`; unique.
        path: The image file.
        label: The class, counted from 0.
        boxes: True boxes, half-open (x0, y0, x1, y1) in pixels of the file. Empty if unknown.
        mask: Segmentation file, if there is one.
    """

    identity: int
    name: str
    path: Path
    label: int
    boxes: tuple[Box, ...] = ()
    mask: Path | None = None

    def resized_boxes(self, size: ArrayLike, frame: ArrayLike) -> np.ndarray:
        """float64 (K,4): the boxes after a file of `size` (width, height) is resized to `frame`."""
        return rescale(np.reshape(self.boxes, (-1, 4)), size, frame)


class LabelledImages(Dataset):
    """Images with labels and boxes, as PyTorch's loaders read them.

    Items are dicts: `image` float32 (3,H,W) in [0,1]; `label`; `box` float32 (4,), the first true
    box, half-open xyxy in the item's own pixels, zeros if there is no box or it is outside of the
    crop; `size` (width, height) of the file; and `index` into `examples`.

    Args:
        examples: The images.
        upright: Whether to rotate each file by its EXIF tag. Sizes and boxes are then in pixels of
            the rotated image.
        transform: From wsol.data.transforms. If None, images keep the file's size.
    """

    def __init__(
        self, examples: Sequence[Example], *, upright: bool, transform: Transform | None = None
    ) -> None:
        self.examples = examples
        self.upright = upright
        self.transform = transform

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example, pixels = self.examples[index], self.pixels(index)
        if self.transform is not None:
            # Drawn from PyTorch's generator, so that one seed determines all random numbers.
            self.transform.set_random_seed(int(torch.randint(2**31, ())))
        image, boxes = network_input(pixels, self.transform, example.boxes[:1])
        return {
            "image": image,
            "label": example.label,
            "box": torch.tensor(boxes[0] if len(boxes) else [0.0] * 4, dtype=torch.float32),
            "size": torch.tensor(pixels.shape[1::-1]),
            "index": index,
        }

    def pixels(self, index: int) -> np.ndarray:
        """uint8 (H,W,3) RGB: the pixels of an image's file, to which its boxes refer."""
        return read_image(self.examples[index].path, upright=self.upright)

    def name(self, index: int) -> str:
        """The name of an image, for messages of `robust_training.fit`."""
        return self.examples[index].name


class ImageDataset(LabelledImages):
    """One split of a data set. A subclass reads one layout of files.

    The constructor of a subclass takes `(root, split, *, transform=None, val_fraction=0.0)` and
    passes the images that it found to this one.

    Args:
        root: The data set's folder.
        split: "train", "val" or "test".
        classes: Names of the classes, in order of their labels.
        train: All images for training.
        test: All images for testing.
        val: Images for validation. If empty, some images of `train` are used for validation.
        val_fraction: Fraction of each class's training images that move from "train" to "val". The
            choice does not depend on the seed of a run. It has no effect if `val` has images.
        images: The folder to which the examples' names are relative. If None, `root`.
        upright, transform: See `LabelledImages`.

    Raises:
        EmptySplitError: the split is empty.
        ValueError: the split is unknown, two classes have the same name, or val_fraction
            is not in [0,1).
    """

    def __init__(
        self,
        root: Path,
        split: Split,
        classes: Sequence[str],
        *,
        train: Sequence[Example],
        test: Sequence[Example],
        val: Sequence[Example] = (),
        val_fraction: float = 0.0,
        images: Path | None = None,
        upright: bool = True,
        transform: Transform | None = None,
    ) -> None:
        if split not in ("train", "val", "test"):
            raise ValueError(f'split must be "train", "val" or "test", not {split!r}')
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be at least 0 and below 1, not {val_fraction}")
        for name, count in Counter(map(composed, classes)).most_common(1):
            if count > 1:
                raise ValueError(f"{count} classes of {root} are called {name}")
        if not val:
            train, val = _hold_out(train, val_fraction)
        examples = {"train": train, "val": val, "test": test}[split]
        if not examples:
            hint = f"; give a val_fraction above {val_fraction:g}" if split == "val" else ""
            raise EmptySplitError(f"the {split} split of {root} is empty{hint}")
        super().__init__(list(examples), upright=upright, transform=transform)
        self.root = Path(root)
        self.images = self.root if images is None else images
        self.split = split
        self.classes = list(classes)

    def mask(self, index: int) -> np.ndarray:
        """bool (H,W) in the file's own size: True for pixels of the object (mask > 127)."""
        example = self.examples[index]
        if example.mask is None:
            raise ValueError(f"{example.name} has no segmentation mask")
        return read_gray(example.mask) > 127

    def declared_sizes(self) -> dict[str, tuple[int, int]]:
        """Name -> (width, height) that the data set's own files give, for as many as they do."""
        return {}

    def boxed(self) -> "ImageDataset | None":
        """Returns a data set of the images that have a box. None if no image has a box."""
        subset = copy.copy(self)
        subset.examples = [example for example in self.examples if example.boxes]
        return subset if subset.examples else None

    def relabelled(self, classes: Sequence[str]) -> "ImageDataset":
        """Returns a data set with labels that count `classes`. Classes are found by their names.

        Raises:
            ValueError: the class of an image is not in `classes`, or is in it twice.
        """
        labels = {}
        for label in sorted({example.label for example in self.examples}):
            places = same_names(self.classes[label], classes)
            if len(places) != 1:
                raise ValueError(
                    f"the model was trained on {len(classes)} classes other than the "
                    f"{len(self.classes)} of {self.root}: {len(places)} of them are called "
                    f"{self.classes[label]!r}"
                )
            labels[label] = places[0]
        subset = copy.copy(self)
        subset.examples = [replace(each, label=labels[each.label]) for each in self.examples]
        subset.classes = list(classes)
        return subset


def spread_evenly(total: int, count: int) -> list[int]:
    """Returns `count` indices below `total`, from the first to the last, evenly spread; all of them
    if there are fewer."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


def _hold_out(examples: Sequence[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """Splits training images into images for training and images held out for validation."""
    held_out: set[int] = set()
    rng = np.random.default_rng(0)
    for label in sorted({example.label for example in examples}):
        members = [example.identity for example in examples if example.label == label]
        held_out.update(rng.permutation(members)[: round(fraction * len(members))].tolist())
    kept = [example for example in examples if example.identity not in held_out]
    return kept, [example for example in examples if example.identity in held_out]
