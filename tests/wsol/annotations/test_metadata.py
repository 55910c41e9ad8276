"""Ground truth and predictions from files, and every way they can be broken."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.helpers.birds import THRESHOLDS, birds, write_published
from wsol.annotations.coco_writing import coco_ground_truth
from wsol.annotations.ground_truth import MaskFiles, make_ground_truth
from wsol.annotations.metadata import read_ground_truth, read_published_metadata
from wsol.annotations.predictions import (
    Predictions,
    mean_predictions,
    predictions_text,
    read_predictions,
)
from wsol.evaluation.box_table import box_row, stack_rows
from wsol.evaluation.error_types import error_types
from wsol.evaluation.pixel_metrics import bin_edges, read_mask
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scores import score_heatmaps
from wsol.report.score_tables import table


def test_metadata_in_three_formats_is_one_truth(toy, tmp_path):
    from_layout = read_ground_truth(toy, "test")
    folder = write_published(tmp_path / "meta" / "test", from_layout)
    (tmp_path / "truth.json").write_text(json.dumps(coco_ground_truth(from_layout)))
    for place in (folder, folder.parent, tmp_path / "truth.json"):
        truth = read_ground_truth(place, "test")
        assert truth.names == from_layout.names
        for column in ("labels", "sizes", "boxes", "counts"):
            np.testing.assert_array_equal(getattr(truth, column), getattr(from_layout, column))
    assert truth.classes == from_layout.classes
    assert truth.identities.tolist() == from_layout.identities.tolist()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("localization.txt", lambda t: t.replace("0.jpg,2", "0.jpg,98"), "box 98,.*0.jpg"),
        ("localization.txt", lambda t: t.replace("10,12", "10,-1"), "box 2,2,10,-1 of 0.jpg"),
        ("localization.txt", lambda t: t.replace("1.jpg", "x.jpg"), "no line for image 1.jpg"),
        ("localization.txt", lambda t: t.replace("2,2", "2,a"), "localization.txt, line 1"),
        ("class_labels.txt", lambda t: t[:-7], "class_labels.txt.*2.jpg"),
        ("class_labels.txt", lambda t: t + "\n0.jpg,1", "line 4: image 0.jpg is listed twice"),
        ("class_labels.txt", lambda t: t.replace(",1", ",-1"), "label -1 of 1.jpg"),
        ("class_labels.txt", lambda t: t.replace(",1", ",0.5"), "line 2: expected whole"),
        ("image_sizes.txt", lambda t: t.replace("20,16", "20", 1), "image_sizes.txt, line 1"),
        ("image_ids.txt", lambda t: t + "\n0.jpg", "0.jpg is listed twice"),
        ("class_labels.txt", lambda t: t.replace(",1", ",1e30"), "label 1.* of 1.jpg"),
        ("image_sizes.txt", lambda t: t.replace("20,16", "0,0", 1), "0.jpg has 0 x 0 pixels"),
        ("image_sizes.txt", lambda t: t.replace("20", "1e300", 1), "0.jpg has 1"),
        ("localization.txt", lambda t: t.replace("2,2,10,12", "m.png,", 1), "1.jpg has no mask"),
        ("image_ids.txt", lambda t: "", "the split is empty"),
    ],
)
def test_broken_metadata_is_named(tmp_path, file, change, message):
    folder = write_published(tmp_path / "meta", birds([(2, 2, 10, 12)] * 3))
    (folder / file).write_text(change((folder / file).read_text()))
    with pytest.raises(ValueError, match=message):
        read_published_metadata(folder)


def test_an_image_without_a_box_is_named():
    with pytest.raises(ValueError, match="here: image b has no box"):
        make_ground_truth("here", ["a", "b"], [0, 0], [(9, 9)] * 2, [[(1, 1, 2, 2)], []], ["x"])


def test_metadata_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no file or folder"):
        read_ground_truth(tmp_path / "nowhere", "test")
    with pytest.raises(ValueError, match="no image_ids.txt"):
        read_ground_truth(tmp_path, "test")


def test_openimages_metadata_has_masks(tmp_path):
    folder = write_published(tmp_path / "meta", birds([(2, 2, 10, 12)] * 2))
    lines = ["0.jpg,a.png,i.png", "0.jpg,b.png,", "1.jpg,c.png,"]
    (folder / "localization.txt").write_text("\n".join(lines))
    truth = read_published_metadata(folder)
    assert truth.boxes.size == 0
    assert truth.masks == (
        MaskFiles((folder / "a.png", folder / "b.png"), folder / "i.png", cut=0),
        MaskFiles((folder / "c.png",), cut=0),
    )
    for name in "abci":
        cv2.imwrite(str(folder / f"{name}.png"), np.eye(16, 20, dtype=np.uint8) * 255)
    edges = bin_edges(THRESHOLDS)
    maps = stack_rows(
        box_row(np.eye(16, 20), mask=read_mask(files, (16, 20), (20, 16)), edges=edges)
        for files in truth.masks
    )
    scores = score_heatmaps(SplitOutput(truth, None, {"maps": maps}), thresholds=THRESHOLDS)
    assert scores.metrics["pixels"]["maps"]["pxap"] == 1
    assert scores.metrics["localization"] == []
    assert "| 100.0 [100.0, 100.0] (mask > 0, 2 images) |" in table({"run": scores.metrics})


def test_predictions_are_written_and_read_again(tmp_path):
    truth = birds([(2, 2, 10, 12)] * 3)
    order = np.array([[0, 2, 1], [2, 1, 0], [1, 0, 2]])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    for given in (probabilities, probabilities[:, :1], None):
        file = tmp_path / "predictions.txt"
        file.write_text(predictions_text(Predictions(order, given, 3), truth))
        read = read_predictions(file, truth)
        np.testing.assert_equal(read.order, order)
        np.testing.assert_equal(read.probabilities, given)


def test_the_mean_of_predictions_by_hand():
    first = Predictions(np.array([[0, 2], [1, 0]]), np.array([[0.6, 0.4], [0.9, 0.1]]), 4)
    second = Predictions(np.array([[2, 3], [0, 1]]), np.array([[0.8, 0.1], [0.5, 0.4]]), 4)
    mean = mean_predictions([first, second])
    assert mean.order.tolist() == [[2, 0], [1, 0]]
    np.testing.assert_allclose(mean.probabilities, [[0.6, 0.3], [0.65, 0.3]])
    assert mean_predictions([first]) is first
    with pytest.raises(ValueError, match="a probability for each class"):
        mean_predictions([first, Predictions(first.order, first.probabilities[:, :1], 4)])


def test_predictions_files(tmp_path):
    truth = birds([(2, 2, 10, 12)] * 3)
    file = tmp_path / "predictions.txt"
    file.write_text("0.jpg,0:0.9,2\n1.jpg, 2:0.5, 1\n2.jpg,0:1,1\nother.jpg,1:1,2\n")
    read = read_predictions(file, truth, known=["other.jpg"])
    assert read.order.tolist() == [[0, 2], [2, 1], [0, 1]]
    assert read.confidence.tolist() == [0.9, 0.5, 1]
    assert read.correct(truth.labels, 1).tolist() == [True, False, False]
    assert read.correct(truth.labels, 5) is None
    file.write_text("0.jpg,0,1,2\n1.jpg,2\n2.jpg,0,1\n")
    assert read_predictions(file, truth).order.tolist() == [[0], [2], [0]]
    file.write_text("0.jpg,7\n1.jpg,2\n2.jpg,0\n")
    assert read_predictions(file, replace(truth, open_classes=True)).classes == 8
    for text, message in {
        "0.jpg,0\n": "no line for image 1.jpg",
        "0.jpg,0\n1.jpg,1\n2.jpg,1\nx.jpg,1": "line 4: this image is not",
        "0.jpg,0\n0.jpg,0": "line 2: this image is listed twice",
        "0.jpg,0,0": "line 1: expected an image and different classes",
        "0.jpg,-1": "line 1: expected",
        "0.jpg": "line 1: invalid literal|line 1: expected",
        "0.jpg,0:7": "line 1: a probability",
        "0.jpg,3": "line 1: class 3 is not in 0 to 2",
        "0.jpg,zero": "line 1: invalid literal",
    }.items():
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_predictions(file, truth)


def test_a_box_that_is_listed_twice_is_one_object():
    box = [2, 2, 10, 12]
    truth = make_ground_truth("here", ["a"], [0], [(20, 16)], [[box, box]], ["x"])
    assert truth.boxes.shape == (1, 1, 4)
    kinds = error_types(np.array([[0, 0, 20, 16]]), truth.boxes, truth.counts)
    assert kinds == ["box too large"]
