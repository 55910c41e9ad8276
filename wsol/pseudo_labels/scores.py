"""Detectors beside the boxes that they learned from: scores, and differences image by image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsol.annotations.coco_reading import read_coco_results
from wsol.annotations.coco_writing import coco_result, has_area
from wsol.annotations.ground_truth import GroundTruth
from wsol.annotations.predictions import Predictions
from wsol.boxes.geometry import iou, rescale
from wsol.detectors import Detections
from wsol.evaluation.metrics import mean_interval
from wsol.evaluation.score_table import HIT
from wsol.evaluation.scores import score_boxes
from wsol.heatmaps.methods import BASELINE
from wsol.pseudo_labels.boxes import ORACLE
from wsol.report.number_format import markdown, percent


@dataclass(frozen=True)
class Scored:
    """Boxes of the test images: a teacher's own, or those of the detectors it taught.

    Attributes:
        policy: Who chose the heatmaps' threshold, "oracle" where true boxes taught, or "given".
        hits: float (N,), share of the detectors (one for each seed) whose box of the true class is
            a hit.
        top1_hits: The same where the class is right, too.
        training_gt_known: Share of hits on the images of the training split that have a true box;
            None where none has, and of a teacher.
        seconds: Of training, for each seed.
    """

    name: str
    policy: str
    hits: np.ndarray
    top1_hits: np.ndarray
    training_gt_known: float | None = None
    seconds: tuple[float, ...] = ()


def detections(
    found: Sequence[Detections], truth: GroundTruth, predictions: Predictions
) -> list[dict[str, Any]]:
    """COCO results of what a detector found in the images of `truth`.

    Args:
        predictions: Class and probability for the boxes of a detector that knows no classes.
    """
    results = []
    for row, each in enumerate(found):
        boxes = rescale(each.boxes.double().numpy(), (1, 1), truth.sizes[row])
        labels, scores = each.labels, each.scores.tolist()
        if labels is None:
            labels = np.full(len(boxes), predictions.order[row, 0])
            scores = [float(predictions.confidence[row])] * len(boxes)
        for box, label, score in zip(boxes.tolist(), labels, scores, strict=True):
            if has_area(box):
                category = int(truth.category_ids[int(label)])
                results.append(coco_result(int(truth.identities[row]), category, box, score))
    return results


def boxed_hits(found: Sequence[Detections], truth: GroundTruth) -> np.ndarray:
    """bool (K,), of the images that have a true box: whether a detector's likeliest box of the true
    class is a hit."""
    best = [each.best_box(int(label)) for each, label in zip(found, truth.labels, strict=True)]
    boxes = rescale(np.stack([box.double().numpy() for box in best]), (1, 1), truth.sizes)
    return iou(boxes[:, None], truth.boxes).max(axis=1, initial=0)[truth.boxed] >= HIT


def score_results(
    name: str,
    policy: str,
    results: Sequence[Path],
    truth: GroundTruth,
    *,
    training_gt_known: Sequence[float] = (),
    seconds: Sequence[float] = (),
) -> Scored:
    """The evaluator's view of COCO results files, one for each seed."""
    hits, top1 = [], []
    for file in results:
        given = read_coco_results(file, truth)
        hits.append(score_boxes(truth, given).headlines[0].iou >= HIT)
        top1.append(hits[-1] & given.predictions.correct(truth.labels, 1))
    known = float(np.mean(training_gt_known)) if training_gt_known else None
    return Scored(name, policy, np.mean(hits, 0), np.mean(top1, 0), known, tuple(seconds))


def score_row(each: Scored, *, seed: int = 0) -> dict[str, Any]:
    """Shares in [0,1], with 95 % bootstrap intervals over images."""
    return {
        "name": each.name,
        "policy": each.policy,
        "gt_known_loc": _mean(each.hits, seed),
        "top1_loc": _mean(each.top1_hits, seed),
        "training_gt_known_loc": each.training_gt_known,
        "seconds": list(each.seconds),
    }


def difference_row(first: Scored, second: Scored, *, seed: int = 0) -> dict[str, Any]:
    """GT-known of the first less the second's; each resample draws the same images for both."""
    return {
        "name": first.name,
        "less": second.name,
        "gt_known_loc": _mean(first.hits - second.hits, seed),
    }


def compared(
    own: Mapping[str, Scored], students: Mapping[str, Scored]
) -> Iterator[tuple[Scored, Scored]]:
    """Each student with its teacher; those of maps also with every floor and its student.

    Args:
        own: Teachers' own boxes by the teacher's name, of those that have boxes of test images.
        students: By the teacher's name.
    """
    floors = [name for name in own if name.endswith(BASELINE)]
    for name, student in students.items():
        if name in own:
            yield student, own[name]
        if name not in floors and name != ORACLE:
            for floor in floors:
                yield student, own[floor]
                yield student, students[floor]


def tables(scores: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: percentages with intervals."""
    heads = ("boxes of", "policy", "GT-known", "Top-1 Loc", "GT-known, training images", "seconds")
    rows = [
        [
            row["name"],
            row["policy"],
            _cell(row["gt_known_loc"]),
            _cell(row["top1_loc"]),
            percent(row["training_gt_known_loc"]),
            f"{np.mean(row['seconds']):.0f}" if row["seconds"] else "-",
        ]
        for row in scores
    ]
    paired = [[row["name"], row["less"], _cell(row["gt_known_loc"])] for row in differences]
    other = ("boxes of", "less those of", "GT-known, paired difference")
    return "\n\n".join(filter(None, [markdown(heads, rows, 2), markdown(other, paired, 2)]))


def _mean(values: np.ndarray, seed: int) -> dict[str, Any]:
    ends = mean_interval(values, seed=seed)
    return {"mean": float(values.mean()), "interval": ends.tolist()}


def _cell(found: Mapping[str, Any]) -> str:
    return percent(found["mean"], found["interval"])
