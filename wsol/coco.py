"""Boxes in COCO's format, to and from other programs: [x, y, width, height] in original pixels."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wsol.localizer import Localization
from wsol.predictions import Predictions
from wsol.truth import Truth, make_truth


def coco_dataset(
    found: Sequence[tuple[str, Localization]], class_names: Sequence[str]
) -> dict[str, Any]:
    """A COCO data set of what was found, each box with a `score`.

    Image ids count from 1 in the order given; category ids are label + 1. An image without a box
    has no annotation. pycocotools opens the whole as ground truth, its `annotations` as results.
    """
    images, annotations = [], []
    for identity, (name, place) in enumerate(found, start=1):
        width, height = place.size
        images.append({"id": identity, "file_name": name, "width": width, "height": height})
        if _has_area(place.box):
            annotation = _annotation(len(annotations) + 1, identity, place.label + 1, place.box)
            annotations.append(annotation | {"score": place.score})
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_truth(truth: Truth) -> dict[str, Any]:
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


def coco_results(truth: Truth, predictions: Predictions, boxes: np.ndarray) -> list[dict[str, Any]]:
    """Results for `coco_truth`: each image's box with the predicted class and its probability.

    Args:
        boxes: (N,4) half-open in the files' pixels; an image whose box is empty has no result.
    """
    results = []
    for row, box in enumerate(np.asarray(boxes, np.float64).tolist()):
        label = int(predictions.order[row, 0])
        if _has_area(box) and label < len(truth.category_ids):
            annotation = _annotation(
                0, int(truth.identities[row]), int(truth.category_ids[label]), box
            )
            results.append(_as_result(annotation, float(predictions.confidence[row])))
    return results


def average_precision(truth: Truth, results: Sequence[Mapping[str, Any]]) -> float:
    """COCO's AP at IoU .5, by pycocotools' COCOeval, of results such as `coco_results` gives."""
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = coco_truth(truth)
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


def read_coco_truth(file: str | Path) -> Truth:
    """Ground truth from a COCO data set whose images show one category each.

    Raises:
        ValueError: it is no such file; names it and the image.
    """
    dataset = _read_json(Path(file))
    try:
        categories = sorted(dataset["categories"], key=lambda category: category["id"])
        label = {int(category["id"]): index for index, category in enumerate(categories)}
        images = {int(image["id"]): image for image in dataset["images"]}
        labels: dict[int, int] = {}
        boxes: dict[int, list[tuple[float, ...]]] = {identity: [] for identity in images}
        for annotation in dataset["annotations"]:
            identity = int(annotation["image_id"])
            if identity not in images:
                raise ValueError(f"{file}: an annotation is for image {identity}, which is none")
            if annotation.get("iscrowd"):
                raise ValueError(f"{file}: image {identity} has a crowd, which is no object's box")
            found = label[int(annotation["category_id"])]
            if labels.setdefault(identity, found) != found:
                raise ValueError(
                    f"{file}: image {identity} shows two categories; localization scores need one"
                )
            boxes[identity].append(_half_open(annotation["bbox"]))
        for identity in images:
            if identity not in labels:
                raise ValueError(f"{file}: image {identity} has no annotation, so no label")
        return make_truth(
            file,
            [str(image["file_name"]) for image in images.values()],
            [labels[identity] for identity in images],
            [(int(image["width"]), int(image["height"])) for image in images.values()],
            list(boxes.values()),
            [str(category["name"]) for category in categories],
            identities=list(images),
            category_ids=[int(category["id"]) for category in categories],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is no COCO ground truth: {error!r}") from error


@dataclass(frozen=True)
class GivenBoxes:
    """Boxes that another program found; rows are images.

    Attributes:
        predictions: The image's classes, ranked by the score of their best box.
        boxes: (N,4) half-open in the files' pixels, zeros where there is none: the best of the true
            category; where it has none, the best of all, since many localizers give one box
            whatever the class.
        found: bool (N,), whether there is any box.
        results: All of them, as COCO has them.
    """

    predictions: Predictions
    boxes: np.ndarray
    found: np.ndarray
    results: list[dict[str, Any]]


def read_coco_results(file: str | Path, truth: Truth) -> GivenBoxes:
    """From a COCO results list; image ids are `truth.identities` or `truth.names`.

    Raises:
        ValueError: no such list, or one with an unknown image or category; names it.
    """
    given = _read_json(Path(file))
    if isinstance(given, dict):  # a data set whose annotations carry scores, as localize.py's
        given = given.get("annotations")
    if not isinstance(given, list):
        raise ValueError(f"{file} is no list of COCO results")
    rows = {int(identity): row for row, identity in enumerate(truth.identities)}
    rows |= {name: row for row, name in enumerate(truth.names)}
    label = {int(identity): index for index, identity in enumerate(truth.category_ids)}
    candidates: list[list[tuple[float, int, tuple[float, ...]]]] = [[] for _ in truth.names]
    results = []
    for number, result in enumerate(given, start=1):
        try:
            score, box = float(result["score"]), _half_open(result["bbox"])
            image, category = rows.get(result["image_id"]), label.get(result["category_id"])
            if image is None or category is None:
                kind = "image_id" if image is None else "category_id"
                raise ValueError(f"unknown {kind} {result[kind]!r}")
            if not np.isfinite([score, *box]).all():
                raise ValueError("a number is not finite")
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{file}, result {number}: {reason}") from error
        candidates[image].append((score, category, box))
        annotation = _annotation(
            0, int(truth.identities[image]), int(truth.category_ids[category]), box
        )
        results.append(_as_result(annotation, score))
    order = np.full((len(truth), 5), -1, np.int64)
    confidence, boxes = np.zeros(len(truth)), np.zeros((len(truth), 4))
    for row, found in enumerate(candidates):
        found.sort(key=lambda candidate: -candidate[0])
        if found:
            ranked = list(dict.fromkeys(category for _, category, _ in found))[:5]
            order[row, : len(ranked)] = ranked
            own = [c for c in found if c[1] == truth.labels[row]] or found
            confidence[row], boxes[row] = found[0][0], own[0][2]
    has_box = np.array([bool(found) for found in candidates])
    return GivenBoxes(Predictions(order, confidence, len(truth.classes)), boxes, has_box, results)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error


def _half_open(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, bbox)
    if width < 0 or height < 0:
        raise ValueError(f"box {bbox} has a negative side")
    return x, y, x + width, y + height


def _has_area(box: Sequence[float]) -> bool:
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


def _as_result(annotation: Mapping[str, Any], score: float) -> dict[str, Any]:
    return {key: annotation[key] for key in ("image_id", "category_id", "bbox")} | {"score": score}
