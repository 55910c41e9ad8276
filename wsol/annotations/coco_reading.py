"""Ground truth and boxes from files in COCO's format, whoever wrote them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wsol.annotations.coco_writing import ROOT, coco_result, coco_results
from wsol.annotations.ground_truth import GroundTruth, make_ground_truth
from wsol.annotations.predictions import Predictions
from wsol.data.dataset import MOST_CLASSES, Box
from wsol.data.names import KnownNames, only, same_names
from wsol.data.text_files import naming, read_json
from wsol.localizer.localization import OBJECT

_Candidate = tuple[float, int, Box]  # score, label, box


@dataclass(frozen=True)
class GivenBoxes:
    """Boxes in N images that another program found.

    Attributes:
        predictions: Each image's classes, ranked by the score of their best box. None if the boxes
            have no classes.
        boxes: (N,4) half-open in the files' pixels: the best box of the true category, or the best
            of all boxes if this category has none, since many localizers give one box for all
            classes. Zeros if an image has no box.
        found: bool (N,), whether an image has any box.
        results: All boxes as COCO results. None if the boxes have no classes.
        left_out: Number of images in the file that the ground truth does not have.
    """

    predictions: Predictions | None
    boxes: np.ndarray
    found: np.ndarray
    results: list[dict[str, Any]] | None
    left_out: int = 0

    def with_predictions(self, predictions: Predictions, truth: GroundTruth) -> "GivenBoxes":
        """Replaces the classes of the boxes."""
        results = None
        if predictions.confidence is not None:
            results = coco_results(truth, predictions, self.boxes)
        return replace(self, predictions=predictions, results=results)


def read_coco_ground_truth(file: str | Path) -> GroundTruth:
    """Reads ground truth from a COCO data set whose images show one category each. Raises
    ValueError if the file is malformed. The message names the file and the mistake."""
    dataset = read_json(file)
    with naming(f"{file} is no COCO ground truth"):
        categories = _by_id(dataset["categories"], "category")
        images = _by_id(dataset["images"], "image")
        label = {identity: index for index, identity in enumerate(sorted(categories))}
        labels: dict[int, int] = {}
        boxes: dict[int, list[Box]] = {identity: [] for identity in images}
        for annotation in dataset["annotations"]:
            identity, category = _whole(annotation["image_id"]), _whole(annotation["category_id"])
            if identity not in images:
                raise ValueError(f"an annotation is for image {identity}, which is none")
            if annotation.get("iscrowd"):
                raise ValueError(f"image {identity} has a crowd, which is no object's box")
            if category not in label:
                raise ValueError(f"image {identity} has category {category}, which is none")
            if labels.setdefault(identity, label[category]) != label[category]:
                raise ValueError(
                    f"image {identity} shows two categories; localization scores need one"
                )
            boxes[identity].append(_half_open(annotation["bbox"]))
        for identity, image in images.items():
            if identity not in labels:
                raise ValueError(f"image {identity} has no annotation, so no label")
            if not _is_text(image["file_name"]):
                raise ValueError("a file_name is no text")
        root = _root(dataset)
        names = [os.path.join(root, image["file_name"]) for image in images.values()]
        sizes = [(_whole(image["width"]), _whole(image["height"])) for image in images.values()]
        titles = [str(categories[identity]["name"]) for identity in label]
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


def read_coco_results(
    file: str | Path, truth: GroundTruth, *, may_miss_all: bool = False
) -> GivenBoxes:
    """Reads a COCO results list, or a data set whose annotations have scores, as localize.py's.

    The image ids of a list are `truth.identities` or `truth.names`. A data set has numbers of its
    own, so its images and categories are found by their names (`wsol.data.names`), and by their
    numbers only if several have that name. Images that `truth` does not have are left out. The only
    category may be `OBJECT`, from a detector that predicts no classes.

    Args:
        may_miss_all: Whether a data set may have none of the images of `truth`.

    Raises:
        ValueError: the file is neither, a list has an unknown image, a data set has no known image,
            a category is unknown, or a name may mean several. The message names it.
    """
    content = read_json(file)
    left_out, classless = 0, False
    if isinstance(content, dict):
        content, left_out, classless = _annotations(file, content, truth, may_miss_all)
    if not isinstance(content, list):
        raise ValueError(f"{file} is no list of COCO results")
    candidates, results = _candidates(file, content, truth)
    found = np.array([bool(each) for each in candidates])
    predictions, boxes = _best(candidates, truth)
    if classless:
        predictions, results = None, None
    return GivenBoxes(predictions, boxes, found, results, left_out)


def read_one_box_each(
    file: str | Path, truth: GroundTruth, *, may_miss_all: bool = False
) -> np.ndarray:
    """Reads the box of each image of `truth`, whatever its class: float64 (N,4), half-open xyxy in
    the files' pixels. Zeros for an image without a box. For `may_miss_all` and errors see
    `read_coco_results`; also raises ValueError if an image has several boxes."""
    given = read_coco_results(file, truth, may_miss_all=may_miss_all)
    if given.results is not None and len(given.results) > given.found.sum():
        raise ValueError(f"{file} has several boxes for an image; exactly one is needed")
    return given.boxes


def _candidates(
    file: str | Path, content: Sequence[Mapping[str, Any]], truth: GroundTruth
) -> tuple[list[list[_Candidate]], list[dict[str, Any]]]:
    """Checks a list of results; returns each image's boxes, and all of them as COCO results."""
    rows: dict[int | str, int] = {int(i): row for row, i in enumerate(truth.identities)}
    rows |= {name: row for row, name in enumerate(truth.names)}
    images = [result.get("image_id") for result in content if isinstance(result, dict)]
    names = KnownNames(truth.names, (each for each in images if isinstance(each, str)))
    label = {int(identity): index for index, identity in enumerate(truth.category_ids)}
    candidates: list[list[_Candidate]] = [[] for _ in truth.names]
    results = []
    for number, result in enumerate(content, start=1):
        with naming(f"{file}, result {number}"):
            score, box = _number(result["score"]), _half_open(result["bbox"])
            image, category = result["image_id"], _whole(result["category_id"])
            row = rows.get(names.find(image) if isinstance(image, str) else _whole(image))
            is_open = truth.open_classes and 1 <= category <= MOST_CLASSES
            index = category - 1 if is_open else label.get(category)
            if row is None or index is None:
                kind = "image_id" if row is None else "category_id"
                raise ValueError(f"unknown {kind} {result[kind]!r}")
        candidates[row].append((score, index, box))
        results.append(coco_result(int(truth.identities[row]), category, box, score))
    return candidates, results


def _best(
    candidates: Sequence[list[_Candidate]], truth: GroundTruth
) -> tuple[Predictions, np.ndarray]:
    """Ranks each image's classes, and chooses its box as `GivenBoxes.boxes` describes."""
    ranked = []
    for found in candidates:
        found.sort(key=lambda candidate: -candidate[0])
        ranked.append(list(dict.fromkeys(category for _, category, _ in found))[:5])
    # The ranking is as wide as the longest one: boxes with one class each have no Top-5 score.
    order = np.full((len(truth), max(1, *map(len, ranked))), -1, np.int64)
    confidence, boxes = np.zeros(len(truth)), np.zeros((len(truth), 4))
    for row, found in enumerate(candidates):
        if found:
            order[row, : len(ranked[row])] = ranked[row]
            own = [each for each in found if each[1] == truth.labels[row]] or found
            confidence[row], boxes[row] = found[0][0], own[0][2]
    classes = max(len(truth.classes), int(order.max()) + 1)
    return Predictions(order, confidence[:, None], classes), boxes


def _annotations(
    file: str | Path, content: Mapping[str, Any], truth: GroundTruth, may_miss_all: bool
) -> tuple[list[Mapping[str, Any]], int, bool]:
    """Turns the annotations of a data set into results for `truth`, with its names as image ids.
    Also returns the number of images left out, and whether all boxes are of `OBJECT`."""
    ids = truth.category_ids.tolist()
    own = dict(zip(truth.names, truth.category_ids[truth.labels].tolist(), strict=True))
    with naming(f"{file} is no data set of boxes"):
        images = _known_images(content, truth)
        names = [name for name in images.values() if name is not None]
        if not (names or may_miss_all):
            raise ValueError("none of its images is one of the ground truth")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two of its images are {twice}")
        given = _by_id(content["categories"], "category")
        titles = {identity: each["name"] for identity, each in given.items()}
        found = {}
        for identity, title in titles.items():
            same = [ids[index] for index in same_names(str(title), truth.classes)]
            found[identity] = [identity] if identity in same else same
        classless = [*titles.values()] == [OBJECT] and not any(found.values())
        results: list[Mapping[str, Any]] = []
        meant: dict[int, int] = {}
        for number, each in enumerate(content["annotations"], start=1):
            for kind, known in (("image_id", images), ("category_id", titles)):
                if each[kind] not in known:
                    raise ValueError(f"result {number}: unknown {kind} {each[kind]!r}")
            name, identity = images[each["image_id"]], each["category_id"]
            if name is None:
                continue
            category = own[name] if classless else only(titles[identity], found[identity])
            if category is None:
                raise ValueError(
                    f"result {number}: {titles[identity]!r} is not a class of the ground truth"
                )
            if not classless and meant.setdefault(category, identity) != identity:
                raise ValueError(f"two of its categories are {titles[identity]!r}")
            results.append({**each, "image_id": name, "category_id": category})
    return results, len(images) - len(names), classless


def _root(content: Mapping[str, Any]) -> str:
    """The folder to which file names are relative, if the file says so, as localize.py's does."""
    return dict(content.get("info") or {}).get(ROOT, "")


def _known_images(content: Mapping[str, Any], truth: GroundTruth) -> dict[int, str | None]:
    """Returns the image of the ground truth that each image of a data set is, or None. File names
    are relative to the folder that the file names, as localize.py's does."""
    root = _root(content)
    files = {
        identity: os.path.join(root, each["file_name"])
        for identity, each in _by_id(content["images"], "image").items()
    }
    names = KnownNames(truth.names, files.values())
    numbers = dict(zip(truth.names, truth.identities.tolist(), strict=True))
    images = {}
    for identity, file in files.items():
        candidates = names.candidates(file)
        same = [name for name in candidates if numbers[name] == identity]
        images[identity] = only(file, same or candidates)
    return images


def _by_id(entries: Sequence[Mapping[str, Any]], kind: str) -> dict[int, Mapping[str, Any]]:
    table: dict[int, Mapping[str, Any]] = {}
    for entry in entries:
        identity = _whole(entry["id"])
        if identity in table:
            raise ValueError(f"two {kind} entries have id {identity}")
        table[identity] = entry
    return table


def _is_text(name: object) -> bool:
    """Whether a name is Unicode text, without halves of letters."""
    return isinstance(name, str) and not any("\ud800" <= letter <= "\udfff" for letter in name)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        raise ValueError(f"{value!r:.40} is not a finite number")  # NaN is not below it either
    return float(value)


def _whole(value: object) -> int:
    if _number(value) % 1:
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _half_open(bbox: object) -> Box:
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError(f"box {bbox!r:.60} is no list of four numbers")
    x, y, width, height = map(_number, bbox)
    if width < 0 or height < 0:
        raise ValueError(f"box {bbox} has a negative side")
    return x, y, x + width, y + height
