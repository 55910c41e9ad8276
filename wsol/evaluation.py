"""Scores of heatmaps or boxes on a data set, with the threshold policy beside every number."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wsol.boxes import iou, rescale
from wsol.coco import GivenBoxes, average_precision, coco_results
from wsol.errors import KINDS, ErrorKinds
from wsol.map_boxes import MapBoxes
from wsol.measuring import Measured
from wsol.metrics import (
    IOU_THRESHOLDS,
    best_threshold,
    bootstrap,
    box_accuracy,
    class_means,
    max_box_acc,
    max_box_acc_v2,
)
from wsol.pixels import pixel_scores
from wsol.rows import HIT, Row, Scorer
from wsol.truth import Truth

PROTOCOL = (
    "Heatmap of the true class; box of the largest contour; IoU of half-open boxes in the image "
    "files' pixels; a hit is IoU >= 0.5; Top-1 and Top-5 Loc also ask that the class is predicted. "
    "Policy val: the threshold with the most hits on validation images, then fixed. Policy "
    "fixed: given in advance. Policy oracle: the best threshold on the scored images themselves. "
    "Policy reference: as the published evaluator (clovaai/wsolevaluation) scores, with its pixel "
    "conventions and an oracle threshold; its GT-known is MaxBoxAcc at 0.5. MaxBoxAcc and "
    "MaxBoxAccV2 choose an oracle threshold for each IoU. Policy given: boxes came without a map. "
    "PxAP has no threshold, pIoU an oracle's. AP50 is COCO's, of the boxes of the first policy "
    "with the predicted class and its probability. Intervals: 95 %, 1000 bootstrap resamples of "
    "the images; an oracle chooses again in each, a validation threshold stays."
)


@dataclass(frozen=True)
class Chosen:
    """The boxes that one row scores.

    Attributes:
        boxes: (N,4) half-open in the files' pixels.
        iou: (N,) best IoU with a true box.
        kinds: str (N,), of `errors.KINDS`.
        results: For COCO; None where no probabilities are known.
    """

    row: Row
    boxes: np.ndarray
    iou: np.ndarray
    kinds: np.ndarray
    results: list[dict[str, Any]] | None


@dataclass(frozen=True)
class Scores:
    """`result` is metrics.json's content; `chosen` holds the first row's boxes of each heatmap."""

    result: dict[str, Any]
    chosen: tuple[Chosen, ...]


def score(
    test: Measured,
    validation: Measured | None = None,
    *,
    thresholds: np.ndarray,
    fixed: float | None = None,
    seed: int = 0,
) -> Scores:
    """Every score of every heatmap under every policy.

    Args:
        test: The scored split.
        validation: Where the "val" policy picks its threshold; without it there is none.
        thresholds: (T,) to choose from. Those that give every image the same box as the one before
            are left out.
        fixed: For the policy "fixed:<t>".
        seed: Of the bootstrap.
    """
    rows: list[Row] = []
    chosen: list[Chosen] = []
    details: dict[str, dict[str, Any]] = {"curves": {}, "reference": {}, "pixels": {}}
    for name, maps in test.maps.items():
        if test.truth.boxes.size:
            distinct = maps.distinct(thresholds)
            scorer = Scorer(name, test, seed)
            table = maps.ious(test.truth, distinct)
            own = []
            if validation is not None:
                held_out = validation.maps[name]
                every = held_out.distinct(thresholds)
                value = every[best_threshold(held_out.ious(validation.truth, every), HIT)]
                own.append(scorer.at("val", value, maps.ious(test.truth, [value])))
            if fixed is not None:
                own.append(scorer.at(f"fixed:{fixed:g}", fixed, maps.ious(test.truth, [fixed])))
            own.append(scorer.oracle("oracle", distinct, table))
            first = own[0]
            published = maps.published_ious(test.truth, distinct)
            own.append(scorer.oracle("reference", distinct, published))
            rows += own
            boxes = rescale(maps.boxes([first.threshold])[:, 0], maps.frame, test.truth.sizes)
            ious = maps.ious(test.truth, [first.threshold])[:, 0]
            known = test.predictions is not None and test.predictions.confidence is not None
            results = coco_results(test.truth, test.predictions, boxes) if known else None
            chosen.append(_choose(first, boxes, ious, test, results))
            details["reference"][name] = _reference(maps, published, distinct, seed)
            details["curves"][name] = {
                "threshold": distinct.tolist(),
                "gt_known_loc": box_accuracy(table, HIT).tolist(),
            }
        if maps.pixels is not None:
            details["pixels"][name] = _pixels(maps.pixels, seed)
    return Scores(_result(test, rows, chosen, details, seed), tuple(chosen))


def score_given(truth: Truth, given: GivenBoxes, *, name: str = "boxes", seed: int = 0) -> Scores:
    """Scores of boxes that came without heatmaps."""
    test = Measured(truth, given.predictions, {})
    ious = iou(given.boxes[:, None], truth.boxes).max(axis=1, keepdims=True)
    row = Scorer(name, test, seed).at("given", None, ious)
    chosen = [_choose(row, given.boxes, ious[:, 0], test, given.results)]
    scores = _result(test, [row], chosen, {}, seed)
    scores["images_without_box"] = int((~given.found).sum())
    return Scores(scores, tuple(chosen))


def _choose(
    row: Row,
    boxes: np.ndarray,
    ious: np.ndarray,
    test: Measured,
    results: list[dict[str, Any]] | None,
) -> Chosen:
    truth = test.truth
    correct = test.correct(1)
    kinds = ErrorKinds(hit=HIT)(boxes, truth.boxes, truth.counts, correct)
    return Chosen(row, boxes, ious, kinds, results)


def _reference(
    maps: MapBoxes, published: np.ndarray, thresholds: np.ndarray, seed: int
) -> dict[str, Any]:
    images = len(published)
    scores = {"max_box_acc": {f"{t:g}": max_box_acc(published, t) for t in IOU_THRESHOLDS}}
    ends = bootstrap(lambda weights: _best_shares(weights, published), images, seed=seed)
    intervals = {"max_box_acc": dict(zip(scores["max_box_acc"], ends.T.tolist(), strict=True))}
    if maps.any_iou is not None:
        any_ious = maps.any_published_ious(thresholds)
        scores["max_box_acc_v2"] = max_box_acc_v2(any_ious)
        ends = bootstrap(lambda weights: _best_shares(weights, any_ious).mean(1), images, seed=seed)
        intervals["max_box_acc_v2"] = ends.tolist()
    return scores | {"intervals": intervals}


def _best_shares(weights: np.ndarray, ious: np.ndarray) -> np.ndarray:
    """(R,3): MaxBoxAcc of each resample, at each IoU."""
    hits = [(ious >= t).astype(np.float32) for t in IOU_THRESHOLDS]
    return np.stack([(weights @ hit).max(axis=1) for hit in hits], axis=1)


def _pixels(counts: np.ndarray, seed: int) -> dict[str, Any]:
    flat = counts.reshape(len(counts), -1).astype(np.float32)
    scores = {key: float(value) for key, value in pixel_scores(counts.sum(axis=0)).items()}

    def statistic(weights: np.ndarray) -> np.ndarray:
        pooled = (weights @ flat).reshape(-1, *counts.shape[1:])
        return np.stack(list(pixel_scores(pooled).values()), axis=1)

    ends = bootstrap(statistic, len(counts), seed=seed).T.tolist()
    return scores | {"intervals": dict(zip(scores, ends, strict=True))}


def _result(
    test: Measured,
    rows: Sequence[Row],
    chosen: Sequence[Chosen],
    details: Mapping[str, Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    truth = test.truth
    right = {k: test.correct(k) for k in (1, 5)}
    accuracy = {
        f"top{k}_accuracy": None if hit is None else float(hit.mean()) for k, hit in right.items()
    }
    precision = {
        c.row.heatmap: average_precision(truth, c.results) for c in chosen if c.results is not None
    }
    errors = {
        c.row.heatmap: {kind: float((c.kinds == kind).mean()) for kind in KINDS} for c in chosen
    }
    classes = {
        c.row.heatmap: dict(
            zip(
                truth.classes,
                [
                    None if np.isnan(share) else float(share)
                    for share in class_means(c.iou >= HIT, truth.labels, len(truth.classes))
                ],
                strict=True,
            )
        )
        for c in chosen
    }
    return {
        "images": len(truth),
        **accuracy,
        "localization": [asdict(row) for row in rows],
        **details,
        "coco_ap50": precision,
        "errors": errors,
        "class_gt_known_loc": classes,
        "bootstrap_seed": seed,
        "protocol": PROTOCOL,
    }
