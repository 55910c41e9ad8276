"""Other programs' boxes, and our own, read from COCO's format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsol.annotations.coco_writing import coco_result
from wsol.annotations.ground_truth import MOST_CLASSES, GroundTruth, make_ground_truth
from wsol.annotations.predictions import Predictions
from wsol.data.text_files import known_end, read_json
from wsol.localizer.localization import OBJECT


def read_coco_ground_truth(file: str | Path) -> GroundTruth:
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
    return make_ground_truth(
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
        left_out: Images of the file that the ground truth does not have.

    Predictions and results are None where the boxes are those of an object of whatever class.
    """

    predictions: Predictions | None
    boxes: np.ndarray
    found: np.ndarray
    results: list[dict[str, Any]] | None
    left_out: int = 0


def read_coco_results(file: str | Path, truth: GroundTruth) -> GivenBoxes:
    """From a COCO results list, or a data set whose annotations carry scores, as localize.py's.

    A list's image ids are `truth.identities` or `truth.names`. A data set has numbers of its own:
    its images and categories are known by their names; images that `truth` does not have are left
    out, and its only category may be `OBJECT`, of a detector that knows no classes.

    Raises:
        ValueError: neither, a list with an unknown image, a data set without a known one, or an
            unknown category; names it.
    """
    given = read_json(file)
    left_out, classless = 0, False
    if isinstance(given, dict):
        given, left_out, classless = _by_the_truths_numbers(file, given, truth)
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
        results.append(coco_result(int(truth.identities[row]), category, box, score))
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
    if classless:
        return GivenBoxes(None, boxes, has_box, None, left_out)
    classes = max(len(truth.classes), int(order.max()) + 1)
    return GivenBoxes(Predictions(order, confidence, classes), boxes, has_box, results, left_out)


def _by_the_truths_numbers(
    file: str | Path, content: Mapping[str, Any], truth: GroundTruth
) -> tuple[list[Mapping[str, Any]], int, bool]:
    """The annotations of a data set, with names of `truth` for its images, ids for its classes; how
    many images are left out; whether all boxes are of `OBJECT`, and have their image's class."""
    ids = dict(zip(truth.classes, truth.category_ids.tolist(), strict=True))
    own = {
        name: int(truth.category_ids[label])
        for name, label in zip(truth.names, truth.labels, strict=True)
    }
    try:
        images = {
            identity: known_end(image["file_name"], own)
            for identity, image in _by_id(content["images"], "image").items()
        }
        names = [name for name in images.values() if name is not None]
        if not names:
            raise ValueError("none of its images is one of the ground truth")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two of its images are {twice}")
        categories = {
            identity: category["name"]
            for identity, category in _by_id(content["categories"], "category").items()
        }
        classless = [*categories.values()] == [OBJECT] and OBJECT not in ids
        found = []
        for number, each in enumerate(content["annotations"], start=1):
            place = f"result {number}: "
            image, category = each["image_id"], each["category_id"]
            if image not in images or category not in categories:
                kind = "category_id" if image in images else "image_id"
                raise ValueError(f"{place}unknown {kind} {each[kind]!r}")
            name, title = images[image], categories[category]
            if name is None:
                continue
            if not (classless or title in ids):
                raise ValueError(f"{place}{title!r} is no class of the ground truth")
            number_of_class = own[name] if classless else ids[title]
            found.append({**each, "image_id": name, "category_id": number_of_class})
    except KeyError as error:
        raise ValueError(f"{file} is no data set of boxes: no {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} is no data set of boxes: {error}") from error
    return found, len(images) - len(names), classless


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
