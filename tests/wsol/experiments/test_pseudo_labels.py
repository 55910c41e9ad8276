"""Pseudo labels by hand: boxes in and out as COCO, scores of detections."""

import json

import numpy as np
import pytest
import torch

from robust_training.atomic_io import write_texts
from tests.helpers.birds import birds
from wsol.annotations.coco_reading import read_coco_results
from wsol.annotations.predictions import Predictions
from wsol.detectors import Detections
from wsol.evaluation.box_table import box_row, stack_rows
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scores import score_boxes
from wsol.experiments.pseudo_labels.pseudo_boxes import (
    examples,
    heatmap_pseudo_labels,
    oracle_pseudo_labels,
    read_pseudo_labels,
)
from wsol.experiments.pseudo_labels.scores import (
    BoxScore,
    boxed_hits,
    detection_results,
    difference_row,
)
from wsol.experiments.pseudo_labels.trainer import DetectorTrainer


def planted_outputs():
    """Heatmaps of 20 x 16: .4 in a wide box, 1 in a narrow one; the third image's is empty. The
    wide box is the true one of the validation images; the others' have nothing to do with it."""
    heatmaps = np.zeros((3, 16, 20))
    heatmaps[:2, 2:10, 2:12] = 0.4
    heatmaps[:2, 4:8, 4:8] = 1.0
    maps = stack_rows(box_row(heatmap) for heatmap in heatmaps)
    true = {"train": (0, 0, 1, 1), "val": (4, 4, 24, 20), "test": (0, 0, 1, 1)}
    return {
        split: SplitOutput(birds([box] * 3, size=(40, 32)), None, {"map": maps})
        for split, box in true.items()
    }


def test_pseudo_labels_are_the_maps_boxes_and_go_through_coco(tmp_path):
    outputs = planted_outputs()
    wide, narrow = [4, 4, 24, 20], [8, 8, 16, 16]
    for threshold, policy, box in ((None, "val", wide), (0.6, "fixed:0.6", narrow)):
        labels = heatmap_pseudo_labels("map", outputs, threshold)
        assert labels.policy == policy
        assert labels.test_boxes.tolist() == [box, box, [0, 0, 0, 0]]
        write_texts(tmp_path / policy, labels.coco_texts())
        again = read_pseudo_labels(tmp_path / policy)
        for boxes in (labels.boxes["train"], again.boxes["train"]):
            assert boxes.names == ("0.jpg", "1.jpg")  # the empty map's image is left out
            assert boxes.boxes[:, 0].tolist() == [box, box]
            assert boxes.labels.tolist() == [0, 1]
            assert boxes.classes == ("a", "b", "c")
    first, second = examples(again.boxes["val"], tmp_path)
    assert (first.path, second.label, second.boxes) == (tmp_path / "0.jpg", 1, ((8, 8, 16, 16),))
    assert oracle_pseudo_labels({name: each.truth for name, each in outputs.items()}).boxes[
        "val"
    ].boxes[0, 0].tolist() == [4, 4, 24, 20]
    empty = {
        split: SplitOutput(m.truth, None, {"map": stack_rows([box_row(np.zeros((16, 20)))] * 3)})
        for split, m in outputs.items()
    }
    with pytest.raises(ValueError, match="no image has a box"):
        heatmap_pseudo_labels("map", empty, 0.5)


def test_detections_are_scored_as_their_boxes_are(tmp_path):
    """Shares of the sides become pixels; a detector without classes takes the classifier's."""
    truth = birds([(2, 4, 12, 12)] * 3, labels=[0, 1, 2])
    predictions = Predictions(np.array([[0], [1], [1]]), np.array([[0.9], [0.8], [0.7]]), 3)
    right = torch.tensor([[0.1, 0.25, 0.6, 0.75]])
    wrong = torch.tensor([[0.8, 0.8, 1.0, 1.0]])
    agnostic = [Detections(box, None, torch.ones(1)) for box in (right, wrong, right)]
    labelled = [
        Detections(torch.cat([wrong, right]), torch.tensor([2, label]), torch.tensor([0.9, 0.5]))
        for label in (0, 1, 2)
    ]
    for found, hits, top1 in ((agnostic, [1, 0, 1], [1, 0, 0]), (labelled, [1, 1, 0], [0, 0, 0])):
        file = tmp_path / "results.json"
        file.write_text(json.dumps(detection_results(found, truth, predictions)))
        given = read_coco_results(file, truth)
        chosen = score_boxes(truth, given).headlines[0]
        assert (chosen.iou >= 0.5).tolist() == hits
        right_class = given.predictions.correct(truth.labels, 1)
        assert ((chosen.iou >= 0.5) & right_class).tolist() == top1
        assert boxed_hits(found, truth).tolist() == hits


def test_differences_are_paired():
    hits = np.array([1.0, 1, 0, 1] * 25)
    first = BoxScore("a", "val", hits, hits)
    second = BoxScore("b", "val", hits - np.array([1.0, 0, 0, 0] * 25), hits)
    assert first.row()["gt_known_loc"]["mean"] == 0.75
    row = difference_row(first, second)
    assert (row["name"], row["less"], row["gt_known_loc"]["mean"]) == ("a", "b", 0.25)
    low, high = row["gt_known_loc"]["interval"]
    assert 0.25 - 0.12 < low < 0.25 - 0.05 < 0.25 + 0.05 < high < 0.25 + 0.12  # +-1.96 x .043
    same = BoxScore("b", "val", hits, hits)
    assert difference_row(first, same)["gt_known_loc"]["interval"] == [0, 0]


def test_a_damaged_detector_is_named(tmp_path):
    outputs = planted_outputs()
    score = tmp_path / "seed0" / "score.json"
    score.parent.mkdir()
    trainer = DetectorTrainer(None, None, None, None, outputs, torch.device("cpu"))
    for text, message in (
        (None, "no detector.json in it"),
        ("{", "score.json is not JSON"),
        ('{"seconds": 3.0}', "score.json is damaged"),
        ('{"seconds": 3.0, "training_gt_known_loc": null}', "there is no results.json"),
    ):
        if text is not None:
            score.write_text(text)
        with pytest.raises(ValueError, match=rf"{message}.*: delete .*seed0 to train it again"):
            trainer.train(
                oracle_pseudo_labels({name: each.truth for name, each in outputs.items()}),
                [0],
                tmp_path,
            )
