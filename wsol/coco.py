"""Boxes in COCO's format, to and from other programs: [x, y, width, height] in original pixels."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wsol.data.text import read_json
from wsol.localization import Localization
from wsol.predictions import Predictions
from wsol.truth import MOST_CLASSES, Truth, make_truth


def coco_dataset(
    found: Iterable[tuple[str, Localization]], class_names: Sequence[str]
) -> dict[str, Any]:
    """A COCO data set of what was found, each box with a `score`.

    Image ids count from 1 in the order given; category ids are label + 1, and 1 without a label.
    An image without a box
    has no annotation. pycocotools opens the whole as ground truth, its `annotations` as results.
    """
    images, annotations = [], []
    for identity, (name, place) in enumerate(found, start=1):
        width, height = place.size
        images.append({"id": identity, "file_name": name, "width": width, "height": height})
        category = 1 if place.label is None else place.label + 1
        for box, score in zip(place.boxes, place.scores, strict=True):
            if _has_area(box):
                annotation = _annotation(len(annotations) + 1, identity, category, box)
                annotations.append(annotation | {"score": score})
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
        ValueError: it is no such file; names it and what is wrong.
    """
    dataset = read_json(file)
    try:
        categories = _by_id(dataset["categories"], "category")
        images = _by_id(dataset["images"], "image")
        label = {identity: index for index, identity in enumerate(sorted(categories))}
        labels: dict[int, int] = {}
        boxes: dict[int, list[tuple[float, ...]]] = {identity: [] for identity in images}
        for annotation in dataset["annotations"]:
            identity = _whole(annotation["image_id"])
            if identity not in images:
                raise ValueError(f"an annotation is for image {identity}, which is none")
            if annotation.get("iscrowd"):
                raise ValueError(f"image {identity} has a crowd, which is no object's box")
            category = _whole(annotation["category_id"])
            if category not in label:
                raise ValueError(f"image {identity} has category {category}, which is none")
            if labels.setdefault(identity, label[category]) != label[category]:
                raise ValueError(
                    f"image {identity} shows two categories; localization scores need one"
                )
            boxes[identity].append(_half_open(annotation["bbox"]))
        for identity in images:
            if identity not in labels:
                raise ValueError(f"image {identity} has no annotation, so no label")
        names = [image["file_name"] for image in images.values()]
        if not all(isinstance(name, str) and _is_text(name) for name in names):
            raise ValueError("a file_name is no text")
        sizes = [(_whole(image["width"]), _whole(image["height"])) for image in images.values()]
        titles = [str(categories[identity]["name"]) for identity in label]
    except KeyError as error:
        raise ValueError(f"{file} is no COCO ground truth: no {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} is no COCO ground truth: {error}") from error
    return make_truth(
        file,
        names,
        [labels[identity] for identity in images],
        sizes,
        list(boxes.values()),
        titles,
        identities=list(images),
        category_ids=list(label),
    )


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
    given = read_json(file)
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
            score, box = _number(result["score"]), _half_open(result["bbox"])
            image, category = result["image_id"], _whole(result["category_id"])
            row = rows.get(image if isinstance(image, str) else _whole(image))
            if truth.open_classes and 1 <= category <= MOST_CLASSES:
                index = category - 1
            else:
                index = label.get(category)
            if row is None or index is None:
                kind = "image_id" if row is None else "category_id"
                raise ValueError(f"unknown {kind} {result[kind]!r}")
        except KeyError as error:
            raise ValueError(f"{file}, result {number}: no {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}, result {number}: {error}") from error
        candidates[row].append((score, index, box))
        annotation = _annotation(0, int(truth.identities[row]), category, box)
        results.append(_as_result(annotation, score))
    ranked = []
    for found in candidates:
        found.sort(key=lambda candidate: -candidate[0])
        ranked.append(list(dict.fromkeys(category for _, category, _ in found))[:5])
    # as wide as the longest ranking: Top-5 is no score of boxes that come with one class each
    order = np.full((len(truth), max(1, *map(len, ranked))), -1, np.int64)
    confidence, boxes = np.zeros(len(truth)), np.zeros((len(truth), 4))
    for row, found in enumerate(candidates):
        if found:
            order[row, : len(ranked[row])] = ranked[row]
            own = [c for c in found if c[1] == truth.labels[row]] or found
            confidence[row], boxes[row] = found[0][0], own[0][2]
    has_box = np.array([bool(found) for found in candidates])
    classes = max(len(truth.classes), int(order.max()) + 1)
    return GivenBoxes(Predictions(order, confidence, classes), boxes, has_box, results)


def _by_id(entries: Sequence[Mapping[str, Any]], what: str) -> dict[int, Mapping[str, Any]]:
    table: dict[int, Mapping[str, Any]] = {}
    for entry in entries:
        identity = _whole(entry["id"])
        if identity in table:
            raise ValueError(f"two {what} entries have id {identity}")
        table[identity] = entry
    return table


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)  # halves of a letter


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        raise ValueError(f"{value!r:.40} is no finite number")  # NaN is not below it either
    return float(value)


def _whole(value: object) -> int:
    if _number(value) % 1:
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def _half_open(bbox: object) -> tuple[float, float, float, float]:
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError(f"box {bbox!r:.60} is no list of four numbers")
    x, y, width, height = map(_number, bbox)
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
