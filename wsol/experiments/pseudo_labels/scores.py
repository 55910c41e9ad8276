"""Scores of detectors and of their pseudo labels, and paired differences."""

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
from wsol.evaluation.metrics import HIT, mean_with_interval
from wsol.evaluation.scores import score_boxes
from wsol.experiments.pseudo_labels.pseudo_boxes import ORACLE
from wsol.heatmaps.methods import BASELINE
from wsol.report.number_format import markdown, percent
from wsol.report.robustness_tables import radius


@dataclass(frozen=True)
class BoxScore:
    """Hits of boxes on the test images: of pseudo labels, or of the detectors trained on them.

    Attributes:
        policy: See `PseudoLabels`.
        hits: float (N,), fraction of the detectors (one for each seed) with a hit by the box of the
            true class.
        top1_hits: float (N,), fraction of the detectors that also predict the true class.
        training_gt_known: Fraction of hits on the training and validation images that have a true
            box. None for pseudo labels, or if no image has a true box.
        seconds: Training time for each seed.
        attacked: From `attack_detector`, for each seed. Empty if nothing was attacked.
    """

    name: str
    policy: str
    hits: np.ndarray
    top1_hits: np.ndarray
    training_gt_known: float | None = None
    seconds: tuple[float, ...] = ()
    attacked: tuple[Mapping[str, Any], ...] = ()

    def row(self) -> dict[str, Any]:
        """Fractions in [0,1], with 95 % bootstrap intervals over images."""
        return {
            "name": self.name,
            "policy": self.policy,
            "gt_known_loc": mean_with_interval(self.hits),
            "top1_loc": mean_with_interval(self.top1_hits),
            "training_gt_known_loc": self.training_gt_known,
            "seconds": list(self.seconds),
            **({"attacked": list(self.attacked)} if self.attacked else {}),
        }


@dataclass(frozen=True)
class DetectorScores:
    """Scores of detectors and pseudo labels, both by the name of the pseudo labels.

    Attributes:
        pseudo_labels: Scores of the pseudo labels, if their boxes of the test images are known.
    """

    detectors: Mapping[str, BoxScore]
    pseudo_labels: Mapping[str, BoxScore]

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the score table: each kind of pseudo labels, then its detector."""
        pairs = ((self.pseudo_labels.get(name), score) for name, score in self.detectors.items())
        return [score.row() for pair in pairs for score in pair if score is not None]

    def differences(self) -> list[dict[str, Any]]:
        """Rows of paired differences."""
        return [difference_row(*pair) for pair in self._pairs()]

    def _pairs(self) -> Iterator[tuple[BoxScore, BoxScore]]:
        """Pairs each detector with its pseudo labels. If these come from heatmaps, also with each
        baseline and with the baseline's detector."""
        baselines = [name for name in self.pseudo_labels if name.endswith(BASELINE)]
        for name, detector in self.detectors.items():
            if name in self.pseudo_labels:
                yield detector, self.pseudo_labels[name]
            if name not in baselines and name != ORACLE:
                for baseline in baselines:
                    yield detector, self.pseudo_labels[baseline]
                    yield detector, self.detectors[baseline]

    def markdown(self) -> str:
        """Scores, paired differences and scores under attack, with percentages and intervals."""
        rows = [
            [
                row["name"],
                row["policy"],
                _cell(row["gt_known_loc"]),
                _cell(row["top1_loc"]),
                percent(row["training_gt_known_loc"]),
                f"{np.mean(row['seconds']):.0f}" if row["seconds"] else "-",
            ]
            for row in self.rows()
        ]
        paired = [[r["name"], r["less"], _cell(r["gt_known_loc"])] for r in self.differences()]
        heads = ("boxes of", "policy", "GT-known", "Top-1 Loc", "GT-known, training images")
        other = ("boxes of", "minus boxes of", "GT-known, paired difference")
        tables = (
            markdown((*heads, "seconds"), rows, 2),
            markdown(other, paired, 2),
            _attacked_table(self.detectors),
        )
        return "\n\n".join(filter(None, tables))


def detection_results(
    found: Sequence[Detections], truth: GroundTruth, predictions: Predictions
) -> list[dict[str, Any]]:
    """COCO results of a detector's boxes in the images of `truth`. If the detector predicts no
    classes, they have class and probability of `predictions`."""
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
    """Whether a detector's most probable box of the true class is a hit: bool (K,), for the images
    with a true box."""
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
    attacked: Sequence[Mapping[str, Any]] = (),
) -> BoxScore:
    """Scores COCO results files as the evaluator does: one file for each seed."""
    hits, top1 = [], []
    for file in results:
        given = read_coco_results(file, truth)
        hits.append(score_boxes(truth, given).headlines[0].iou >= HIT)
        top1.append(hits[-1] & given.predictions.correct(truth.labels, 1))
    known = float(np.mean(training_gt_known)) if training_gt_known else None
    return BoxScore(
        name,
        policy,
        np.mean(hits, 0),
        np.mean(top1, 0),
        training_gt_known=known,
        seconds=tuple(seconds),
        attacked=tuple(attacked),
    )


def difference_row(first: BoxScore, second: BoxScore) -> dict[str, Any]:
    """GT-known of `first` minus GT-known of `second`. Resamples have the same images for both."""
    return {
        "name": first.name,
        "less": second.name,
        "gt_known_loc": mean_with_interval(first.hits - second.hits),
    }


def _attacked_table(detectors: Mapping[str, BoxScore]) -> str:
    """GT-known of each attacked detector before and after the attack. Empty if there is none."""
    rows = [
        [
            score.name,
            str(each["seed"]),
            f"{_attack(each['box_attack']['attack'])}, {each['images']} images",
            *(_cell(each["gt_known_loc"][key]) for key in ("clean", "attacked", "change")),
            _cell(each["under_noise"]),
            _cell(each["iou_with_clean"]),
        ]
        for score in detectors.values()
        for each in score.attacked
    ]
    heads = ("boxes of", "seed", "attack on the box", "GT-known", "attacked", "change")
    return markdown((*heads, "under noise", "IoU with the clean box"), rows, 3)


def _attack(settings: Mapping[str, Any]) -> str:
    norm = settings["norm"]
    return f"PGD {norm} {radius(settings['eps'], norm)}, {settings['steps']} steps"


def _cell(found: Mapping[str, Any]) -> str:
    return percent(found["mean"], found["interval"])
