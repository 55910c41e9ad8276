"""A data set's images with labels and boxes, whatever layout they lie in."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import Dataset

from wsol.boxes.geometry import rescale
from wsol.data.image_cache import cached_images, load_images
from wsol.data.image_files import read_gray, read_image
from wsol.data.transforms import Transform, eval_transform

Split = Literal["train", "val", "test"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Example:
    """One image of a data set.

    Attributes:
        identity: The data set's own number of the image.
        name: Its path below `ImageDataset.images`.
        boxes: True ones, half-open (x0, y0, x1, y1) in pixels of the file; none where nobody said.
        mask: Segmentation file, where there is one.
    """

    identity: int
    name: str
    path: Path
    label: int
    boxes: tuple[Box, ...]
    mask: Path | None

    def resized_boxes(self, size: ArrayLike, frame: ArrayLike) -> np.ndarray:
        """float64 (K,4): its boxes once a file of `size` (width, height) has the size `frame`."""
        return rescale(np.reshape(self.boxes, (-1, 4)), size, frame)


class LabelledImages(Dataset):
    """Images with labels and boxes.

    Items are dicts: `image` float32 (3,H,W) in [0,1], `label`, `box` float32 (4,), the first one,
    half-open xyxy in the item's own pixels (zeros where there is none or a crop has lost it),
    `size` (width, height) of the file, and `index` into `examples`.

    Args:
        examples: What there is.
        upright: Turn each file as its camera's orientation tag says; sizes and boxes are then in
            pixels as viewers show them.
        transform: From wsol.data.transforms; None keeps the file's size.
        cache: Folder that keeps the images decoded and resized to `cache_size`, which the transform
            then starts from; None decodes the files every time.
        cache_size: Side in pixels, that which the transform would resize to first.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        upright: bool = False,
        transform: Transform | None = None,
        cache: str | os.PathLike | None = None,
        cache_size: int | None = None,
    ) -> None:
        self.examples = examples
        self.upright = upright
        self.transform = transform
        self._cache: Path | None = None
        if cache is not None and cache_size is not None:
            files = [example.path for example in examples]
            what = f"resized to {cache_size}{', upright' if upright else ''}"
            read = partial(_resized, size=cache_size, upright=upright)
            self._cache = cached_images(cache, files, read, what)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.examples[index]
        if self._cache is None:
            pixels = self.pixels(index)
            size = (pixels.shape[1], pixels.shape[0])
        else:
            record = load_images(self._cache)[index]
            pixels, size = record["image"], tuple(record["size"].tolist())
        box = example.resized_boxes(size, pixels.shape[1::-1])[:1]
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

    def pixels(self, index: int) -> np.ndarray:
        """uint8 (H,W,3) RGB of an image's file, the pixels that its boxes count."""
        return read_image(self.examples[index].path, upright=self.upright)

    def name(self, index: int) -> str:
        """What the data set calls an image."""
        return self.examples[index].name


class ImageDataset(LabelledImages):
    """One split of a data set.

    Args:
        root: The data set's folder.
        images: The folder in which examples have their names.
        classes: Names, in order of labels.
        examples: The split's; at least one.
        upright, transform, cache, cache_size: As for `LabelledImages`.
    """

    def __init__(
        self,
        root: Path,
        images: Path,
        split: Split,
        classes: list[str],
        examples: Sequence[Example],
        *,
        upright: bool,
        transform: Transform | None = None,
        cache: str | os.PathLike | None = None,
        cache_size: int | None = None,
    ) -> None:
        self.root = root
        self.images = images
        self.split = split
        self.classes = classes
        self._caching = {"cache": cache, "cache_size": cache_size}
        super().__init__(examples, upright=upright, transform=transform, **self._caching)

    def mask(self, index: int) -> np.ndarray:
        """bool (H,W) in the file's own size: where the object is (mask > 127)."""
        example = self.examples[index]
        if example.mask is None:
            raise ValueError(f"{example.name} has no segmentation mask")
        return read_gray(example.mask) > 127

    def boxed(self) -> "ImageDataset | None":
        """The same with the images that have a box alone; None where none has."""
        examples = [example for example in self.examples if example.boxes]
        if len(examples) in (0, len(self)):
            return self if examples else None
        return ImageDataset(
            self.root,
            self.images,
            self.split,
            self.classes,
            examples,
            upright=self.upright,
            transform=self.transform,
            **self._caching,
        )


def select(
    where: Path,
    split: Split,
    val_fraction: float,
    *,
    train: Sequence[Example],
    test: Sequence[Example],
    val: Sequence[Example] = (),
) -> list[Example]:
    """The examples of a split of the data set at `where`.

    Args:
        val_fraction: Share of each class's training images, rounded, that "val" takes away from
            "train": the same ones whatever the seed of a run. Not used where there are images for
            validation, `val`.

    Raises:
        ValueError: there is no such split, it is empty, or the share is not in [0,1).
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f'split must be "train", "val" or "test", not {split!r}')
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be at least 0 and below 1, not {val_fraction}")
    if not val:
        train, val = _hold_out(train, val_fraction)
    examples = {"train": train, "val": val, "test": test}[split]
    if not examples:
        hint = f"; give a val_fraction above {val_fraction:g}" if split == "val" else ""
        raise ValueError(f"the {split} split of {where} is empty{hint}")
    return list(examples)


def _hold_out(
    examples: Sequence[Example], share: float
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Those that are kept, and those that are not."""
    held_out: set[int] = set()
    rng = np.random.default_rng(0)
    for label in sorted({example.label for example in examples}):
        members = [example.identity for example in examples if example.label == label]
        held_out.update(rng.permutation(members)[: round(share * len(members))].tolist())
    kept = [example for example in examples if example.identity not in held_out]
    return kept, [example for example in examples if example.identity in held_out]


def _resized(file: Path, size: int, upright: bool) -> tuple[np.ndarray, tuple[int, int]]:
    pixels = read_image(file, upright=upright)
    small = eval_transform(size)(image=pixels, bboxes=[])["image"]
    return small, (pixels.shape[1], pixels.shape[0])
