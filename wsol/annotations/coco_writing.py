"""Boxes and ground truth in COCO's format: boxes are [x, y, width, height] in the files' pixels."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wsol.annotations.ground_truth import GroundTruth
from wsol.annotations.predictions import Predictions
from wsol.localizer.localization import Localization

ROOT = "root"  # in COCO's `info`: the folder to which file names are relative


def coco_dataset(
    found: Iterable[tuple[str, Localization]], class_names: Sequence[str]
) -> dict[str, Any]:
    """Localizations as a COCO data set in which each box has a `score`.

    Image ids count from 1 in the order given. Category ids are label + 1, and 1 without a label.
    An image without a box has no annotation. pycocotools reads the data set as ground truth and its
    `annotations` as results."""
    images, annotations = [], []
    for identity, (name, place) in enumerate(found, start=1):
        images.append(_image(identity, name, place.size))
        category = 1 if place.label is None else place.label + 1
        for box, score in zip(place.boxes, place.scores, strict=True):
            if has_area(box):
                annotation = _annotation(len(annotations) + 1, identity, category, box)
                annotations.append(annotation | {"score": score})
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_ground_truth(truth: GroundTruth) -> dict[str, Any]:
    """Ground truth as a COCO data set."""
    images, annotations = [], []
    ids = truth.category_ids.tolist()
    for row, name in enumerate(truth.names):
        identity, category = int(truth.identities[row]), ids[truth.labels[row]]
        images.append(_image(identity, name, truth.sizes[row].tolist()))
        for box in truth.boxes[row, : truth.counts[row]].tolist():
            annotations.append(_annotation(len(annotations) + 1, identity, category, box))
    categories = [{"id": i, "name": name} for i, name in zip(ids, truth.classes, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_results(
    truth: GroundTruth, predictions: Predictions, boxes: np.ndarray
) -> list[dict[str, Any]]:
    """One result for each image, with the predicted class and its probability as the score.

    Args:
        truth: The images; image and category ids are those of `coco_ground_truth`.
        boxes: (N,4) half-open in the files' pixels; an image whose box is empty has no result.
    """
    results = []
    for row, box in enumerate(np.asarray(boxes, np.float64).tolist()):
        label = int(predictions.order[row, 0])
        if has_area(box) and label < len(truth.category_ids):
            image, category = int(truth.identities[row]), int(truth.category_ids[label])
            results.append(coco_result(image, category, box, float(predictions.confidence[row])))
    return results


def coco_result(image: int, category: int, box: Sequence[float], score: float) -> dict[str, Any]:
    """One COCO result from a half-open box (x0, y0, x1, y1)."""
    return {"image_id": image, "category_id": category, "bbox": _bbox(box), "score": score}


def has_area(box: Sequence[float]) -> bool:
    """Whether a box (x0, y0, x1, y1) is not empty."""
    x0, y0, x1, y1 = box
    return x1 > x0 and y1 > y0


def _image(identity: int, name: str, size: Sequence[int]) -> dict[str, Any]:
    return {"id": identity, "file_name": name, "width": size[0], "height": size[1]}


def _annotation(number: int, image: int, category: int, box: Sequence[float]) -> dict[str, Any]:
    bbox = _bbox(box)
    found = {"id": number, "image_id": image, "category_id": category, "bbox": bbox}
    return found | {"area": bbox[2] * bbox[3], "iscrowd": 0}


def _bbox(box: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]
