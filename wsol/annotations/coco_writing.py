"""Boxes in COCO's format, for other programs: [x, y, width, height] in original pixels."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wsol.annotations.ground_truth import GroundTruth
from wsol.annotations.predictions import Predictions
from wsol.localizer.localization import Localization


def coco_dataset(
    found: Iterable[tuple[str, Localization]], class_names: Sequence[str]
) -> dict[str, Any]:
    """A COCO data set of what was found, each box with a `score`.

    Image ids count from 1 in the order given; category ids are label + 1, and 1 without a label.
    An image without a box has no annotation. pycocotools opens the whole as ground truth, its
    `annotations` as results.
    """
    images, annotations = [], []
    for identity, (name, place) in enumerate(found, start=1):
        width, height = place.size
        images.append({"id": identity, "file_name": name, "width": width, "height": height})
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
    for row, name in enumerate(truth.names):
        width, height = truth.sizes[row].tolist()
        identity = int(truth.identities[row])
        images.append({"id": identity, "file_name": name, "width": width, "height": height})
        category = int(truth.category_ids[truth.labels[row]])
        for box in truth.boxes[row, : truth.counts[row]].tolist():
            annotations.append(_annotation(len(annotations) + 1, identity, category, box))
    categories = [
        {"id": int(identity), "name": name}
        for identity, name in zip(truth.category_ids, truth.classes, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_results(
    truth: GroundTruth, predictions: Predictions, boxes: np.ndarray
) -> list[dict[str, Any]]:
    """Results for `coco_ground_truth`: a box for each image, with the predicted class's score.

    Args:
        boxes: (N,4) half-open in the files' pixels; an image whose box is empty has no result.
    """
    results = []
    for row, box in enumerate(np.asarray(boxes, np.float64).tolist()):
        label = int(predictions.order[row, 0])
        if has_area(box) and label < len(truth.category_ids):
            image, category = int(truth.identities[row]), int(truth.category_ids[label])
            results.append(coco_result(image, category, box, float(predictions.confidence[row])))
    return results


def average_precision(truth: GroundTruth, results: Sequence[Mapping[str, Any]]) -> float:
    """COCO's AP at IoU .5, by pycocotools' COCOeval, of results such as `coco_results` gives."""
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = coco_ground_truth(truth)
        expected.createIndex()
        found = expected.loadRes([dict(result) for result in results])
        run = COCOeval(expected, found, "bbox")
        run.params.iouThrs = np.array([0.5])
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.params.maxDets = [100]
        precision = []
        # COCOeval visits every pair of image and category; all but a category's own hold nothing
        for category in sorted({entry["category_id"] for entry in expected.anns.values()}):
            images = set(expected.getImgIds(catIds=[category])) | set(found.catToImgs[category])
            run.params.catIds, run.params.imgIds = [category], sorted(images)
            run.evaluate()
            run.accumulate()
            precision.append(run.eval["precision"].mean())
    return float(np.mean(precision))


def has_area(box: Sequence[float]) -> bool:
    x0, y0, x1, y1 = box
    return x1 > x0 and y1 > y0


def _annotation(number: int, image: int, category: int, box: Sequence[float]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
    }


def coco_result(image: int, category: int, box: Sequence[float], score: float) -> dict[str, Any]:
    annotation = _annotation(0, image, category, box)
    return {key: annotation[key] for key in ("image_id", "category_id", "bbox")} | {"score": score}
