"""A check of a whole data set, before hours of training depend on it."""

import os
import warnings
from operator import ne
from pathlib import Path

from wsol.annotations.ground_truth import clip_box, dataset_ground_truth
from wsol.data.dataset import EmptySplitError, ImageDataset
from wsol.data.loaders import find_layout


def verify_data_set(
    root: str | os.PathLike, *, class_path: type[ImageDataset] | None = None
) -> str:
    """Check that the images of a data set can be opened, and that boxes lie in their images.

    Only the headers of image files are read. Sizes that the data set's own files give must be those
    of the images.

    Args:
        root: Folder of the data set.
        class_path: Class that reads `root`. If None, the layout is recognized by its files.

    Returns:
        One line: the layout, and for each split the number of images, classes and boxes.

    Raises:
        ValueError: there is no data set, a file is malformed, an image is missing or is no image or
            has another size than declared, or a box lies wholly outside of its image.
    """
    kind = find_layout(root) if class_path is None else class_path
    parts = []
    for split in ("train", "val", "test"):
        try:
            dataset = kind(Path(root), split)
        except EmptySplitError:
            parts.append(f"{split} has no images of its own")
            continue
        parts.append(f"{split} {_checked(dataset)}")
    return f"{root} ({kind.__name__}): {'; '.join(parts)}"


def _checked(dataset: ImageDataset) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # boxes that end outside are counted below
        truth = dataset_ground_truth(dataset)
    declared = dataset.declared_sizes()
    beyond = 0
    for example, size in zip(dataset.examples, truth.sizes.tolist(), strict=True):
        given = declared.get(example.name, tuple(size))
        if given != tuple(size):
            raise ValueError(
                f"{example.path} has {size[0]} x {size[1]} pixels, but the data set's files say "
                f"{given[0]} x {given[1]}; boxes would not fit"
            )
        clipped = (clip_box(dataset.root, box, example.name, size) for box in example.boxes)
        beyond += sum(map(ne, clipped, example.boxes))
    boxes = f"{truth.counts.sum():,} boxes" + (f" ({beyond} end outside)" if beyond else "")
    return f"{len(truth):,} images of {len(set(truth.labels.tolist())):,} classes, {boxes}"
