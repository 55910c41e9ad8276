"""Ground truth of a split: labels, boxes and masks, without the images themselves."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsol.boxes.geometry import NO_BOX
from wsol.data.dataset import MOST_CLASSES, Box, ImageDataset
from wsol.data.image_files import image_size
from wsol.data.names import path_below

_LONGEST = 1_000_000  # largest allowed side of an image, in pixels


@dataclass(frozen=True)
class MaskFiles:
    """Segmentation of one image: the union of `objects`. Other pixels of `ignore` are not scored.

    Attributes:
        objects: Mask files. An image may have several objects.
        ignore: Mask file of pixels that are not scored.
        cut: Pixels above this value (0 to 254) belong to the mask. CUB's masks have grey edges; 127
            is the middle value. The published evaluator uses 0, and so does DA-WSOL on CUB.
    """

    objects: tuple[Path, ...]
    ignore: Path | None = None
    cut: int = 127


@dataclass(frozen=True)
class GroundTruth:
    """Labels, boxes and masks of a split. Each array has a row per image, in the split's order.

    Attributes:
        names: Unique names of the images in the data set.
        labels: int64 (N,), from 0.
        sizes: int64 (N,2), width and height of the image files. Zeros if they are unknown; only
            masks can then be scored.
        boxes: float64 (N,G,4) half-open xyxy in the files' pixels. Rows beyond `counts` repeat the
            first box, or are zeros if an image has no box. G is 0 if no image has a box.
        counts: int64 (N,), number of true boxes of each image.
        classes: Names of the classes, in order of labels.
        masks: A mask for each image, None for an image without one. Empty if no image has a mask.
        identities: int64 (N,), image ids in COCO files.
        category_ids: int64 (classes,), category ids in COCO files.
        open_classes: Whether there may be more classes than those in `classes`.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    counts: np.ndarray
    classes: tuple[str, ...]
    masks: tuple[MaskFiles | None, ...]
    identities: np.ndarray
    category_ids: np.ndarray
    open_classes: bool

    def __len__(self) -> int:
        return len(self.names)

    @property
    def boxed(self) -> np.ndarray:
        """bool (N,): whether an image has a box."""
        return self.counts > 0

    @property
    def mask_files(self) -> tuple[MaskFiles, ...]:
        """The masks of the images that have one."""
        return tuple(mask for mask in self.masks if mask is not None)


def make_ground_truth(
    where: str | Path,
    names: Sequence[str],
    labels: Sequence[int],
    sizes: Sequence[Sequence[int]],
    boxes: Sequence[Sequence[Sequence[float]]],
    classes: Sequence[str],
    *,
    masks: Sequence[MaskFiles | None] = (),
    identities: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
    open_classes: bool = False,
    some_boxed: bool = False,
) -> GroundTruth:
    """Checks ground truth and puts it into arrays.

    A box that extends outside of its image is clipped at the image's edge, as in the published
    evaluator's metadata. This happens for 30 boxes of CUB-200-2011. A warning gives the number. A
    box that is listed twice for an image counts once. A box with x0 = x1 or y0 = y1 is kept: it
    counts as a pixel in the published evaluator, and has area 0 in half-open IoU.

    Args:
        where: The source of the ground truth, for messages.
        some_boxed: Whether some images may have no box although others have one.

    Raises:
        ValueError: there are no images, a name is listed twice, a size or label is out of range, a
            box has x1 < x0 or y1 < y0 or lies wholly outside of its image, only some images have
            boxes, or a mask has no file. The message names the image.
    """
    if not names:
        raise ValueError(f"{where}: the split is empty")
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"{where}: image {twice} is listed twice")
    for name, mask in zip(names, masks, strict=bool(masks)):
        if mask is not None and not mask.objects:
            raise ValueError(f"{where}: image {name} has no mask, but other images have one")
    inside: list[list[Box]] = []
    clipped: list[str] = []
    has_boxes = any(map(len, boxes))
    each_mask = masks or [None] * len(names)
    for name, label, size, found, mask in zip(names, labels, sizes, boxes, each_mask, strict=True):
        if not 0 <= label < MOST_CLASSES:
            raise ValueError(f"{where}: label {label} of {name} is not in 0 to {MOST_CLASSES - 1}")
        is_unknown = not any(size) and mask is not None and not len(found)
        if not (is_unknown or all(1 <= side <= _LONGEST for side in size)):
            raise ValueError(f"{where}: image {name} has {size[0]:g} x {size[1]:g} pixels")
        if has_boxes and not (len(found) or some_boxed):
            raise ValueError(f"{where}: image {name} has no box")
        inside.append([clip_box(where, box, name, size) for box in found])
        clipped += [name for box, part in zip(found, inside[-1], strict=True) if (*box,) != part]
    if clipped:
        warnings.warn(
            f"{where}: {len(clipped)} box(es) extend outside of their image and are clipped at its "
            f"edge, for example in {clipped[0]}",
            stacklevel=2,
        )
    unique = [list(dict.fromkeys(found)) for found in inside]
    most = max(map(len, unique))
    padded = [[*found, *(found[:1] or [NO_BOX]) * (most - len(found))] for found in unique]
    return GroundTruth(
        tuple(names),
        np.array(labels, np.int64),
        np.array(sizes, np.int64).reshape(-1, 2),
        np.array(padded, np.float64).reshape(len(names), most, 4),
        np.array([len(found) for found in unique], np.int64),
        tuple(classes),
        tuple(masks),
        np.array(range(1, len(names) + 1) if identities is None else identities, np.int64),
        np.array(range(1, len(classes) + 1) if category_ids is None else category_ids, np.int64),
        open_classes,
    )


def clip_box(where: str | Path, box: Sequence[float], name: str, size: Sequence[int]) -> Box:
    """Clips a box at its image's edge. Raises ValueError if x1 < x0, y1 < y0 or it is outside."""
    (x0, y0, x1, y1), (width, height) = box, size
    ordered = x0 <= x1 and y0 <= y1  # false for NaN too
    if not (ordered and x0 < width and y0 < height and x1 >= 0 and y1 >= 0):
        raise ValueError(
            f"{where}: box {x0:g},{y0:g},{x1:g},{y1:g} of {name} does not lie in its image of "
            f"{width} x {height} pixels"
        )
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def dataset_ground_truth(dataset: ImageDataset) -> GroundTruth:
    """Returns the ground truth of a split. Images without a box or a mask are allowed. Raises
    ValueError if an image cannot be read, or a box does not lie in its image. The message names the
    image."""
    examples = dataset.examples
    masks = [None if e.mask is None else MaskFiles((e.mask,)) for e in examples]
    return make_ground_truth(
        dataset.root,
        [example.name for example in examples],
        [example.label for example in examples],
        [image_size(example.path, upright=dataset.upright) for example in examples],
        [example.boxes for example in examples],
        dataset.classes,
        masks=masks if any(masks) else (),
        identities=[example.identity for example in examples],
        some_boxed=True,
    )


def with_masks(truth: GroundTruth, folder: str | Path) -> GroundTruth:
    """Adds masks <folder>/<image>.png, the layout of CUB's segmentations. Raises ValueError if an
    image has no mask there, or its path is outside of the folder. The message names the image."""
    files = []
    for name in truth.names:
        path_below(folder, name)  # before its end is changed: a backslash may be part of it
        files.append(path_below(folder, str(Path(name).with_suffix(".png"))))
    for name, file in zip(truth.names, files, strict=True):
        if not file.is_file():
            raise ValueError(f"there is no mask {file} for image {name}")
    return replace(truth, masks=tuple(MaskFiles((file,)) for file in files))


def with_mask_cut(truth: GroundTruth, cut: int) -> GroundTruth:
    """Returns the ground truth with `cut` set in each mask."""
    masks = tuple(None if mask is None else replace(mask, cut=cut) for mask in truth.masks)
    return replace(truth, masks=masks)


def with_classes(truth: GroundTruth, classes: int) -> GroundTruth:
    """Adds classes, named by their numbers, until there are at least `classes`."""
    extra = range(len(truth.classes), classes)
    first = int(truth.category_ids.max(initial=0)) + 1
    return replace(
        truth,
        classes=(*truth.classes, *map(str, extra)),
        category_ids=np.append(truth.category_ids, np.arange(first, first + len(extra))),
    )
