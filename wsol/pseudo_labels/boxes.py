"""Boxes that a detector learns from: a localizer's, which saw labels alone, or somebody else's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robust_training.atomic_io import write_texts
from robust_training.models.classifier import Classifier
from wsol.annotations.coco_reading import read_coco_ground_truth
from wsol.annotations.coco_writing import coco_ground_truth
from wsol.annotations.ground_truth import GroundTruth
from wsol.boxes.geometry import area, rescale
from wsol.data.dataset import Example, ImageDataset
from wsol.data.image_files import image_size
from wsol.evaluation.run_model import SplitOutput, run_model
from wsol.evaluation.scores import validation_threshold
from wsol.evaluation.split_selection import PreparedSplit
from wsol.heatmaps.heatmap import HeatmapMethod

ORACLE = "oracle"
Splits = Mapping[str, SplitOutput]


@dataclass(frozen=True)
class Teacher:
    """Boxes by split.

    Attributes:
        policy: Who chose the heatmaps' threshold: "val" or "fixed:<t>"; "oracle" of true boxes,
            "given" of other programs'.
        boxes: Of "train" and "val"; images without a box are left out.
        test_boxes: (N,4) in the files' pixels, zeros where there is none; None where not known.
    """

    name: str
    policy: str
    boxes: Mapping[str, GroundTruth]
    test_boxes: np.ndarray | None = None


def folder_name(name: str) -> str:
    """Of a teacher's boxes and students."""
    return name.replace(" ", "_")


def measure_splits(
    model: Classifier, splits: Mapping[str, PreparedSplit], methods: Mapping[str, HeatmapMethod]
) -> dict[str, SplitOutput]:
    """Predictions, and the true class's heatmap boxes at every threshold, of all splits."""
    return {
        name: run_model(model, split, methods, every_box=False, description=name)
        for name, split in splits.items()
    }


def localizing_teacher(name: str, splits: Splits, threshold: float | None) -> Teacher:
    """The boxes around the heatmaps called `name`; no true box of a training image is looked at.

    Args:
        threshold: Of the heatmap's maximum; None is the one that true boxes of the validation
            images choose.
    """
    policy = "val" if threshold is None else f"fixed:{threshold:g}"
    if threshold is None:
        threshold = validation_threshold(splits["val"], name)
    found = {
        split: rescale(
            each.tables[name].boxes([threshold])[:, 0], each.tables[name].frame, each.truth.sizes
        )
        for split, each in splits.items()
    }
    taught = {split: with_boxes(splits[split].truth, found[split]) for split in ("train", "val")}
    return Teacher(name, policy, taught, found["test"])


def require_true_boxes(splits: Mapping[str, PreparedSplit]) -> None:
    """ValueError where no image of "train", or none of "val", has one for `oracle_teacher`."""
    for split in ("train", "val"):
        if splits[split].dataset.boxed() is None:
            raise ValueError(f"{ORACLE} teaches true boxes, and no {split} image has one")


def oracle_teacher(splits: Splits) -> Teacher:
    """The first true box of each image that has one: the ceiling, which no method that learns from
    labels alone may use. Some images of each split must have one: `require_true_boxes`."""
    truths = {split: splits[split].truth for split in ("train", "val")}
    boxes = {split: with_boxes(truth, truth.boxes[:, 0]) for split, truth in truths.items()}
    return Teacher(ORACLE, ORACLE, boxes)


def read_teacher(folder: Path) -> Teacher:
    """COCO data sets train.json and val.json; an image's first box counts, and empty ones do not.

    Raises:
        ValueError: a file is missing or no COCO data set with one category an image; names it.
    """
    truths = {split: read_coco_ground_truth(folder / f"{split}.json") for split in ("train", "val")}
    boxes = {split: with_boxes(truth, truth.boxes[:, 0]) for split, truth in truths.items()}
    return Teacher(folder.resolve().name, "given", boxes)


def require_lessons(teacher: Teacher, test: ImageDataset) -> None:
    """ValueError where a teacher's boxes are of images of `test`, of other classes than its, or in
    pixels of another size than the image's; names the file."""
    tested = {example.path.resolve() for example in test.examples}
    for split, boxes in teacher.boxes.items():
        where = f"{split}.json of {teacher.name}"
        if list(boxes.classes) != test.classes:
            raise ValueError(f"{where} has other classes than {test.root}")
        for name, size in zip(boxes.names, boxes.sizes.tolist(), strict=True):
            file = test.images / name
            if file.resolve() in tested:
                raise ValueError(f"{where} has a box of {name}, which is a test image")
            width, height = image_size(file, upright=test.upright)
            if size != [width, height]:
                raise ValueError(
                    f"{where} says that {name} has {size[0]} x {size[1]} pixels; it has {width} x "
                    f"{height}"
                )


def write_teacher(teacher: Teacher, folder: Path) -> None:
    """As `read_teacher` reads it; file names are relative to the images' folder."""
    write_texts(folder, coco_texts(teacher))


def coco_texts(teacher: Teacher) -> dict[str, str]:
    """Contents of train.json and val.json."""
    return {f"{s}.json": json.dumps(coco_ground_truth(truth)) for s, truth in teacher.boxes.items()}


def examples(boxes: GroundTruth, images: Path) -> Sequence[Example]:
    """The images of a teacher's boxes, which lie below the folder `images`."""
    rows = zip(boxes.identities, boxes.names, boxes.labels, boxes.boxes[:, 0], strict=True)
    return [
        Example(int(identity), name, images / name, int(label), (tuple(box.tolist()),), None)
        for identity, name, label, box in rows
    ]


def with_boxes(truth: GroundTruth, boxes: np.ndarray) -> GroundTruth:
    """The same images with `boxes` (N,4) in place of theirs, without those whose box is empty.

    Raises:
        ValueError: all are.
    """
    kept = area(boxes) > 0
    if not kept.any():
        raise ValueError("the teacher found no box in any image")
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
