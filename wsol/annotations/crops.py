"""A copy of a data set whose images are cropped to boxes that were found in them."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from robust_training.atomic_io import new_folder
from robust_training.progress import Progress
from wsol.annotations.coco_reading import read_one_box_each
from wsol.annotations.ground_truth import dataset_ground_truth
from wsol.boxes.geometry import area
from wsol.data.dataset import EmptySplitError, ImageDataset
from wsol.data.loaders import find_layout

_QUALITY = 95  # of JPEG files


def write_crops(
    root: str | os.PathLike,
    *,
    boxes: str | os.PathLike,
    output: str | os.PathLike,
    margin: float = 0.3,
    val_fraction: float = 0.1,
    class_path: type[ImageDataset] | None = None,
) -> Path:
    """Crop the images of a data set to boxes that a localizer found, for training a classifier.

    Writes `output`/{train,val,test}/<class>/<image> (`ImageFolder`), without true boxes and masks.
    File names stay, so the predictions of a classifier of crops are valid for the whole images:
    `evaluate.py boxes --predictions`. An image without a found box is copied whole.

    Args:
        root: Folder of the data set.
        boxes: COCO file with one box for each image, for example boxes.json of localize.py.
        output: The new folder.
        margin: The side of the square crop is 1 + margin times the longer side of the box. The
            crop ends at the image's edge.
        val_fraction: Fraction of each class's training images that are held out in val, as for
            train.py. A data set's own validation images are kept.
        class_path: Class that reads `root`. If None, the layout is recognized by its files.

    Raises:
        ValueError: the folder `output` exists, the margin is negative, an image has several found
            boxes, two images of a class have one file name, or a file cannot be read.
    """
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} already exists; remove it or choose another folder")
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, not {margin}")
    kind = find_layout(root) if class_path is None else class_path
    splits = []
    for split in ("train", "val", "test"):
        with suppress(EmptySplitError):
            dataset = kind(Path(root), split, val_fraction=val_fraction)
            splits.append((dataset, _found_boxes(dataset, Path(boxes))))
    with new_folder(output) as partial:
        for dataset, found in splits:
            _write_split(dataset, found, partial / dataset.split, margin)
    return output


def _found_boxes(dataset: ImageDataset, file: Path) -> np.ndarray:
    """Reads one box (N,4) for each image of a split; zeros for an image without a found box."""
    if sorted(dataset.classes) != list(dataset.classes):
        raise ValueError(
            f"the classes of {dataset.root} are not in alphabetical order, and folders of classes "
            "are: predictions for the crops would have other class numbers"
        )
    return read_one_box_each(file, dataset_ground_truth(dataset))


def _write_split(dataset: ImageDataset, boxes: np.ndarray, folder: Path, margin: float) -> None:
    for index in Progress(range(len(dataset)), desc=folder.name, unit="image", leave=False):
        example, pixels = dataset.examples[index], dataset.pixels(index)
        frame = np.array([0, 0, *pixels.shape[1::-1]])
        x0, y0, x1, y1 = square_crop(boxes[index], frame, margin)
        file = folder / dataset.classes[example.label] / example.path.name
        if file.exists():
            raise ValueError(f"two images of {file.parent.name} are called {file.name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[y0:y1, x0:x1]).save(file, quality=_QUALITY)


def square_crop(box: np.ndarray, frame: np.ndarray, margin: float) -> np.ndarray:
    """Returns whole pixels (x0, y0, x1, y1): a square around the middle of `box`, inside `frame`.

    Its side is 1 + `margin` times the longer side of the box, before it is cut at the frame's edge.
    A box without area gives the frame.
    """
    if not area(box) > 0:
        return frame
    half = (1 + margin) * (box[2:] - box[:2]).max() / 2
    middle = (box[:2] + box[2:]) / 2
    low, high = np.floor(middle - half), np.ceil(middle + half)
    return np.concatenate([low, high]).astype(int).clip(frame[[0, 1, 0, 1]], frame[[2, 3, 2, 3]])
