"""Boxes for training a detector: boxes around heatmaps, from other programs, or true boxes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsol.annotations.coco_reading import read_coco_ground_truth, read_one_box_each
from wsol.annotations.coco_writing import coco_ground_truth
from wsol.annotations.ground_truth import GroundTruth
from wsol.boxes.geometry import area, rescale
from wsol.data.dataset import Example, ImageDataset
from wsol.data.image_files import image_size
from wsol.data.names import KnownNames, composed
from wsol.data.text_files import naming
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.threshold_policy import validation_threshold

ORACLE = "oracle"
TRAINING_SPLITS = ("train", "val")


@dataclass(frozen=True)
class PseudoLabels:
    """One box for each image, for training and validation of a detector.

    Attributes:
        name: Heatmap method, "oracle", or the name of the folder with the boxes.
        policy: Threshold policy of the heatmaps, "val" or "fixed:<t>"; "oracle" for true
            boxes, "given" for boxes from other programs.
        boxes: Images and boxes of "train" and "val", without the images that have no box.
        test_boxes: (N,4) in the image files' pixels, zeros for an image without a box. None if
            they are not known.
    """

    name: str
    policy: str
    boxes: Mapping[str, GroundTruth]
    test_boxes: np.ndarray | None = None

    def coco_texts(self) -> dict[str, str]:
        """Contents of train.json and val.json, as `read_pseudo_labels` reads them.

        File names in them are relative to the data set's folder of images.
        """
        return {f"{s}.json": json.dumps(coco_ground_truth(t)) for s, t in self.boxes.items()}


def folder_name(name: str) -> str:
    """Name of the folder of pseudo labels and of the detectors trained on them."""
    return name.replace(" ", "_")


def heatmap_pseudo_labels(
    name: str, outputs: Mapping[str, SplitOutput], threshold: float | None
) -> PseudoLabels:
    """Makes boxes around the heatmaps called `name`. True boxes of training images are not used.

    Args:
        outputs: Heatmap boxes of the splits "train", "val" and "test".
        threshold: Fraction of the heatmap's maximum. If None, the threshold with the most hits on
            the true boxes of the validation images.
    """
    policy = "val" if threshold is None else f"fixed:{threshold:g}"
    if threshold is None:
        threshold = validation_threshold(outputs["val"], name)
    boxes = {}
    for split, each in outputs.items():
        table = each.tables[name]
        boxes[split] = rescale(table.boxes([threshold])[:, 0], table.frame, each.truth.sizes)
    truths = {split: with_boxes(outputs[split].truth, boxes[split]) for split in TRAINING_SPLITS}
    return PseudoLabels(name, policy, truths, boxes["test"])


def oracle_pseudo_labels(truths: Mapping[str, GroundTruth]) -> PseudoLabels:
    """Returns the first true box of each image in `truths` (by split) that has a box.

    They give an upper bound: a weakly supervised method may not use them. Raises ValueError if no
    image of "train", or no image of "val", has a true box."""
    for split in TRAINING_SPLITS:
        if not truths[split].boxed.any():
            raise ValueError(f"{ORACLE} trains on true boxes, but no {split} image has one")
    return PseudoLabels(ORACLE, ORACLE, _first_boxes(truths))


def read_pseudo_labels(folder: Path) -> PseudoLabels:
    """Reads the first box of each image from the COCO data sets train.json and val.json. Raises
    ValueError if a file is missing, or is not a COCO data set with one category for each image. The
    message names the file."""
    truths = {split: read_coco_ground_truth(folder / f"{split}.json") for split in TRAINING_SPLITS}
    return PseudoLabels(folder.resolve().name, "given", _first_boxes(truths))


def name_of_file(file: Path) -> str:
    """Name of the pseudo labels in a file: that of its folder."""
    return file.resolve().parent.name


def found_pseudo_labels(file: Path, truths: Mapping[str, GroundTruth]) -> PseudoLabels:
    """Takes the boxes that a localizer found, for example boxes.json of localize.py.

    Args:
        file: COCO, with one box for each image.
        truths: The images of the splits "train", "val" and "test". Their true boxes are not used.

    Raises:
        ValueError: the file cannot be read, has several boxes for an image, or has no box of a
            training or of a validation image.
    """
    boxes = {split: read_one_box_each(file, truths[split]) for split in TRAINING_SPLITS}
    test_boxes = read_one_box_each(file, truths["test"], may_miss_all=True)
    labels = {split: with_boxes(truths[split], found) for split, found in boxes.items()}
    known = test_boxes if test_boxes.any() else None
    return PseudoLabels(name_of_file(file), "given", labels, known)


def _first_boxes(truths: Mapping[str, GroundTruth]) -> dict[str, GroundTruth]:
    return {s: with_boxes(truths[s], truths[s].boxes[:, 0]) for s in TRAINING_SPLITS}


def checked_pseudo_labels(
    labels: PseudoLabels, training: Sequence[ImageDataset], test: ImageDataset
) -> PseudoLabels:
    """Returns pseudo labels with the names that the images have in the data set.

    Args:
        training: The splits of the data set other than `test`.

    Raises:
        ValueError: boxes are in images of `test`, they have other classes than `test`, or they are
            in pixels of another image size. The message names the file.
    """
    tested = {example.path.resolve() for example in test.examples}
    known = [each.name for dataset in (*training, test) for each in dataset.examples]
    checked = {}
    for split, boxes in labels.boxes.items():
        where = f"{split}.json of {labels.name}"
        if [*map(composed, boxes.classes)] != [*map(composed, test.classes)]:
            raise ValueError(f"{where} has other classes than {test.root}")
        names = KnownNames(known, boxes.names)
        with naming(where):
            own = tuple(names.find(name) or name for name in boxes.names)
        checked[split] = replace(boxes, names=own)
        for name, size in zip(own, boxes.sizes.tolist(), strict=True):
            file = test.images / name
            if file.resolve() in tested:
                raise ValueError(f"{where} has a box of {name}, which is a test image")
            width, height = image_size(file, upright=test.upright)
            if size != [width, height]:
                raise ValueError(
                    f"{where}: {name} has {size[0]} x {size[1]} pixels; the file has {width} x "
                    f"{height}"
                )
    return replace(labels, boxes=checked)


def examples(boxes: GroundTruth, images: Path) -> Sequence[Example]:
    """Training examples from pseudo labels. The image files are in the folder `images`."""
    rows = zip(boxes.identities, boxes.names, boxes.labels, boxes.boxes[:, 0], strict=True)
    return [
        Example(int(identity), name, images / name, int(label), (tuple(box.tolist()),), None)
        for identity, name, label, box in rows
    ]


def with_boxes(truth: GroundTruth, boxes: np.ndarray) -> GroundTruth:
    """Replaces the boxes by `boxes` (N,4), and leaves out images with an empty new box. Raises
    ValueError if all boxes are empty."""
    kept = area(boxes) > 0
    if not kept.any():
        raise ValueError("no image has a box, so no detector can be trained")
    return replace(
        truth,
        names=tuple(name for name, keep in zip(truth.names, kept, strict=True) if keep),
        labels=truth.labels[kept],
        sizes=truth.sizes[kept],
        boxes=np.asarray(boxes, np.float64)[kept, None],
        counts=np.ones(int(kept.sum()), np.int64),
        masks=(),
        identities=truth.identities[kept],
    )
