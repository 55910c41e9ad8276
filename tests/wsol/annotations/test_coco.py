"""COCO's format in and out, and its average precision."""

import dataclasses
import json

import numpy as np
import pytest

from tests.helpers.birds import birds
from wsol.annotations.coco_reading import read_coco_ground_truth, read_coco_results
from wsol.annotations.coco_writing import coco_ground_truth, coco_results
from wsol.annotations.metadata import read_ground_truth
from wsol.annotations.predictions import Predictions
from wsol.evaluation.metrics import average_precision
from wsol.evaluation.results import image_table
from wsol.evaluation.scores import score_boxes
from wsol.report.number_format import markdown
from wsol.report.score_tables import more_table


def test_average_precision_equals_cocoevals_over_all_pairs():
    """Ours visits only the pairs of image and category that hold something."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    truth = birds([(2, 2, 10, 12)] * 40, labels=rng.integers(0, 5, 40), classes=6)
    order = np.where(rng.random(40) < 0.6, truth.labels, rng.integers(0, 6, 40))[:, None]
    boxes = np.array([2, 2, 10, 12]) + rng.integers(-2, 3, (40, 4))
    results = coco_results(truth, Predictions(order, rng.random((40, 1)), 6), boxes)
    expected = COCO()
    expected.dataset = coco_ground_truth(truth)
    expected.createIndex()
    run = COCOeval(expected, expected.loadRes([dict(r) for r in results]), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert average_precision(truth, results) == pytest.approx(run.stats[1])
    assert 0.1 < run.stats[1] < 0.9
    assert average_precision(truth, []) == 0


def test_names_of_ground_truth_lie_in_the_folder_that_the_file_names(tmp_path):
    file, truth = tmp_path / "truth.json", birds([(2, 2, 10, 12)] * 2)
    file.write_text(json.dumps(coco_ground_truth(truth) | {"info": {"root": "/data/photos"}}))
    assert read_coco_ground_truth(file).names == ("/data/photos/0.jpg", "/data/photos/1.jpg")


def test_a_data_set_of_boxes_has_numbers_of_its_own(tmp_path):
    """localize.py writes such a file: images and classes are found by name, in whatever order."""
    truth = birds([(2, 2, 10, 12), (4, 4, 12, 14), (0, 0, 5, 5)])
    content = {
        "images": [
            {"id": 1, "file_name": "photos/2.jpg", "width": 20, "height": 16},
            {"id": 2, "file_name": "photos/0.jpg", "width": 20, "height": 16},
            {"id": 3, "file_name": "1.jpg", "width": 20, "height": 16},
        ],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5},
            {"image_id": 2, "category_id": 2, "bbox": [2, 2, 8, 10], "score": 0.5},
            {"image_id": 3, "category_id": 3, "bbox": [4, 4, 8, 10], "score": 0.5},
        ],
        "categories": [{"id": 1, "name": "c"}, {"id": 2, "name": "a"}, {"id": 3, "name": "b"}],
    }
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(content))
    given = read_coco_results(file, truth)
    assert given.boxes.tolist() == truth.boxes[:, 0].tolist()
    assert given.predictions.order[:, 0].tolist() == truth.labels.tolist()
    deep = birds([(2, 2, 10, 12), (4, 4, 12, 14), (0, 0, 5, 5)])
    deep = dataclasses.replace(deep, names=("test/a/0.jpg", "test/a/1.jpg", "test/a/2.jpg"))
    below = [each | {"file_name": each["file_name"][-5:]} for each in content["images"]]
    file.write_text(json.dumps(content | {"images": below, "info": {"root": "/old/data/test/a"}}))
    assert read_coco_results(file, deep).boxes.tolist() == truth.boxes[:, 0].tolist()
    file.write_text(json.dumps(content | {"info": 3}))
    with pytest.raises(ValueError, match="boxes.json is no data set of boxes"):
        read_coco_results(file, truth)
    for part, change, message in (
        ("images", {"file_name": "photos/0.jpg"}, "two of its images are 0.jpg"),
        ("categories", {"name": 1}, "result 1: .*1 is not a class of the ground truth"),
        (
            "categories",
            {"name": "object"},
            "result 1: .*'object' is not a class of the ground truth",
        ),
        ("images", {"file_name": 3}, "boxes.json"),
        ("images", {"id": 9}, "result 1: unknown image_id 1"),
        ("annotations", {"category_id": 9}, "result 1: unknown category_id 9"),
    ):
        first, *others = content[part]
        file.write_text(json.dumps(content | {part: [first | change, *others]}))
        with pytest.raises(ValueError, match=message):
            read_coco_results(file, truth)
    file.write_text(json.dumps({"images": content["images"]}))
    with pytest.raises(ValueError, match="boxes.json is no data set of boxes: no 'categories'"):
        read_coco_results(file, truth)


def _written(tmp_path, name, names, categories, numbers=(1, 2), **box):
    """A COCO file of two images; image i shows the i-th category."""
    content = {
        "images": [
            {"id": number, "file_name": name, "width": 100, "height": 80}
            for number, name in zip(numbers, names, strict=True)
        ],
        "annotations": [
            {"id": i, "image_id": number, "category_id": category, "bbox": [i, 10, 40, 30], **box}
            for i, (number, (category, _)) in enumerate(zip(numbers, categories, strict=True), 1)
        ],
        "categories": [{"id": number, "name": title} for number, title in categories],
    }
    (tmp_path / name).write_text(json.dumps(content))
    return tmp_path / name


CLASSES = ((1, "cat"), (2, "dog"))
CRANES = ((1, "crane"), (2, "crane"))


@pytest.mark.parametrize(
    ("truth", "classes", "given", "categories", "numbers"),
    [
        (("/d/a.jpg", "/d/b.jpg"), CLASSES, ("/d/a.jpg", "/d/b.jpg"), CLASSES, (7, 8)),
        (("images\\a.jpg", "./b.jpg"), CLASSES, ("p/images/a.jpg", "b.jpg"), CLASSES, (7, 8)),
        (("/d/a.jpg", "/d/b.jpg"), CLASSES, ("a.jpg", "b.jpg"), CLASSES, (2, 1)),
        (("x/a.jpg", "y/a.jpg"), CLASSES, ("a.jpg", "a.jpg"), CLASSES, (1, 2)),
        (("a.jpg", "b.jpg"), CRANES, ("a.jpg", "b.jpg"), CRANES, (7, 8)),
        (
            ("a.jpg", "b.jpg"),
            ((1, "\u00e9"), (2, "dog")),
            ("a.jpg", "b.jpg"),
            ((5, "e\u0301"), (1, "dog")),
            (7, 8),
        ),
    ],
)
def test_perfect_boxes_are_perfect_in_every_spelling(
    tmp_path, truth, classes, given, categories, numbers
):
    read = read_ground_truth(_written(tmp_path, "t.json", truth, classes), "test")
    boxes = _written(tmp_path, "r.json", given, categories, numbers, score=0.9)
    scores = score_boxes(read, read_coco_results(boxes, read)).metrics
    row = scores["localization"][0]
    assert (row["gt_known_loc"], row["top1_loc"]) == (1, 1)
    assert [*scores["headline"]["boxes"]["class_gt_known_loc"].values()] == [1, 1]


@pytest.mark.parametrize(
    ("truth", "classes", "given", "categories", "message"),
    [
        (("x/a.jpg", "y/a.jpg"), CLASSES, ("a.jpg", "b.jpg"), CLASSES, "'a.jpg' may mean 'x/a.jpg"),
        (("a.jpg", "b.jpg"), CLASSES, ("a.jpg", "./a.jpg"), CLASSES, "two of its images are a.jpg"),
        (("a.jpg", "b.jpg"), CRANES, ("a.jpg", "b.jpg"), ((5, "crane"), (2, "x")), "may mean 1 or"),
        (("a.jpg", "b.jpg"), CLASSES, ("a.jpg", "b.jpg"), ((5, "cat"), (6, "cat")), "two of its c"),
    ],
)
def test_names_that_may_mean_two_things_are_refused(
    tmp_path, truth, classes, given, categories, message
):
    read = read_ground_truth(_written(tmp_path, "t.json", truth, classes), "test")
    file = _written(tmp_path, "r.json", given, categories, (7, 8), score=0.9)
    with pytest.raises(ValueError, match=rf"r.json .*{message}"):
        read_coco_results(file, read)


def test_boxes_of_more_images_and_of_no_class_are_scored(tmp_path):
    """localize.py writes such files for a whole folder, and with a detector without classes."""
    truth = birds([(2, 2, 10, 12), (4, 4, 12, 14)])
    content = {
        "images": [
            {"id": 1, "file_name": "photos\\1.jpg", "width": 20, "height": 16},
            {"id": 2, "file_name": "photos/of_training.jpg", "width": 20, "height": 16},
        ],
        "annotations": [
            {"image_id": 2, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.9},
            {"image_id": 1, "category_id": 1, "bbox": [4, 4, 8, 10], "score": 0.5},
        ],
        "categories": [{"id": 1, "name": "object"}],
    }
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(content))
    given = read_coco_results(file, truth)
    assert (given.left_out, given.found.tolist()) == (1, [False, True])
    assert given.boxes.tolist() == [[0, 0, 0, 0], [4, 4, 12, 14]]
    scores = score_boxes(truth, given).metrics
    assert scores["localization"][0]["gt_known_loc"] == 0.5
    assert scores["localization"][0]["top1_loc"] is None
    assert scores["top1_accuracy"] is None
    assert scores["headline"]["boxes"]["coco_ap50"] is None
    content["images"][0]["file_name"] = "photos/7.jpg"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="none of its images is one of the ground truth"):
        read_coco_results(file, truth)


def test_given_boxes_have_box_accuracy_at_each_iou(tmp_path):
    """Boxes with IoU 1, 0.6, 0.4 and 0."""
    truth = birds([(2, 2, 10, 12)] * 4)
    heights = (10, 6, 4)
    results = [
        {"image_id": i, "category_id": 1, "bbox": [2, 2, 8, height], "score": 0.5}
        for i, height in enumerate(heights, start=1)
    ]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    scores = score_boxes(truth, read_coco_results(file, truth)).metrics
    reference = scores["reference"]["boxes"]
    assert reference["max_box_acc"] == {"0.3": 0.75, "0.5": 0.5, "0.7": 0.25}
    assert reference["max_box_acc_v2"] == 0.5
    assert "75.0 at 0.3, 50.0 at 0.5, 25.0 at 0.7 (given)" in markdown(*more_table({"run": scores}))


def test_given_boxes_are_scored_like_maps(tmp_path):
    """One box each, some of a wrong class, one image without any."""
    truth = birds([(2, 2, 10, 12)] * 4, labels=[0, 1, 2, 0])
    box = {"bbox": [2, 2, 8, 10], "score": 0.5}
    results = [
        {"image_id": 1, "category_id": 1, **box},
        {"image_id": "1.jpg", "category_id": 1, **box},
        {"image_id": 3, "category_id": 3, **box},
        {"image_id": 3, "category_id": 1, "bbox": [11, 11, 2, 2], "score": 0.9},
    ]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    given_boxes = read_coco_results(file, truth)
    assert given_boxes.found.tolist() == [True, True, True, False]
    scores = score_boxes(truth, given_boxes)
    (row,) = scores.metrics["localization"]
    assert (row["policy"], row["threshold"]) == ("given", None)
    assert [row[key] for key in ("gt_known_loc", "top1_loc", "top5_loc")] == [0.75, 0.25, None]
    assert scores.metrics["images_without_box"] == 1
    assert scores.headlines[0].error_types.tolist() == ["right", *["wrong class"] * 3]
    lines = image_table(scores).splitlines()
    assert lines[1] == "0.jpg,0,0,2.00,2.00,10.00,12.00,1.0,boxes,given,,right"
    assert lines[4] == "3.jpg,0,,0.00,0.00,0.00,0.00,0.0,boxes,given,,wrong class"
    for change, message in (
        ({"image_id": 9}, "result 1: unknown image_id 9"),
        ({"category_id": 9}, "result 1: unknown category_id 9"),
        ({"bbox": [0, 0, -1, 1]}, "result 1: box .* negative"),
        ({"bbox": [0, 0, 1]}, "result 1: box .* four numbers"),
        ({"bbox": "0123"}, "result 1: box .* four numbers"),
        ({"score": float("nan")}, "result 1: nan is not a finite number"),
        ({"score": 10**400}, "result 1: 1000.* is not a finite number"),
        ({"score": None}, "result 1: None is not a finite"),
        ({"image_id": 1.5}, "result 1: 1.5 is not a whole"),
        ({"image_id": True}, "result 1: True is not a finite"),
        ({"image_id": [1]}, "result 1"),
    ):
        file.write_text(json.dumps([results[0] | change]))
        with pytest.raises(ValueError, match=message):
            read_coco_results(file, truth)
    for text in ("{}", "3", "[", '["a"]'):
        file.write_text(text)
        with pytest.raises(ValueError, match="results.json"):
            read_coco_results(file, truth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"].pop(), "image 3 has no annotation"),
        (lambda d: d["annotations"][0].update(image_id=7), "image 7, which is none"),
        (lambda d: d["annotations"].append(d["annotations"][0] | {"category_id": 2}), "two categ"),
        (lambda d: d["images"].append(d["images"][0]), "two image entries have id 1"),
        (lambda d: d["categories"].append(d["categories"][0]), "two category entries have id 1"),
        (lambda d: d["images"][0].update(file_name=None), "a file_name is no text"),
        (lambda d: d["images"][0].update(width=20.7), "20.7 is not a whole number"),
        (lambda d: d["images"][0].update(width=10**30), "is not a finite number"),
        (lambda d: d["annotations"][0].update(category_id=9), "category 9, which is none"),
        (lambda d: d.update(images=[3]), "no COCO ground truth"),
        (lambda d: d["annotations"][0].update(iscrowd=1), "crowd"),
        (lambda d: d["annotations"][0].update(bbox=[90, 0, 5, 5]), "box 90,0,95,5 of 0.jpg"),
        (lambda d: d.pop("images"), "no COCO ground truth"),
    ],
)
def test_broken_coco_truth_is_named(tmp_path, change, message):
    dataset = coco_ground_truth(birds([(2, 2, 10, 12)] * 3))
    change(dataset)
    (tmp_path / "truth.json").write_text(json.dumps(dataset))
    with pytest.raises(ValueError, match=message):
        read_ground_truth(tmp_path / "truth.json", "test")
