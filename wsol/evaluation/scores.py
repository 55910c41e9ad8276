"""Scores of heatmaps or boxes on a data set, with the threshold policy beside every number."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wsol.annotations.coco_reading import GivenBoxes
from wsol.annotations.coco_writing import coco_results
from wsol.annotations.ground_truth import GroundTruth
from wsol.boxes.geometry import iou, rescale
from wsol.evaluation.average_precision import average_precision
from wsol.evaluation.box_table import BoxTable
from wsol.evaluation.error_types import ERROR_TYPES, ErrorTypes
from wsol.evaluation.metrics import (
    IOU_THRESHOLDS,
    best_threshold,
    bootstrap,
    box_accuracy,
    class_means,
    max_box_acc,
    max_box_acc_v2,
)
from wsol.evaluation.pixel_metrics import pixel_scores
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.score_table import HIT, Scorer, ScoreRow

PROTOCOL = (
    "Heatmap of the true class; box of the largest contour; IoU of half-open boxes in the image "
    "files' pixels; a hit is IoU >= 0.5; Top-1 and Top-5 Loc also ask that the class is predicted. "
    "Policy val: the threshold with the most hits on validation images, then fixed. Policy "
    "fixed: given in advance; ART's published 0.2 where no validation image has a box. Policy "
    "oracle: the best threshold on the scored images themselves. "
    "Policy reference: as the published evaluator (clovaai/wsolevaluation) scores, with its pixel "
    "conventions and an oracle threshold; its GT-known is MaxBoxAcc at 0.5. MaxBoxAcc and "
    "MaxBoxAccV2 choose an oracle threshold for each IoU. Policy given: boxes came without a map. "
    "PxAP has no threshold, pIoU an oracle's. AP50 is COCO's, of the boxes of the policy beside "
    "it with the predicted class and its probability. Intervals: 95 %, 1000 bootstrap resamples of "
    "the images; an oracle chooses again in each, a validation threshold stays."
)
THRESHOLDS = np.arange(0, 1, 0.001)


@dataclass(frozen=True)
class Headline:
    """The boxes that one row scores: the headline of its kind of heatmap.

    Attributes:
        boxes: (N,4) half-open in the files' pixels.
        iou: (N,) best IoU with a true box.
        error_types: str (N,), of `errors.ERROR_TYPES`.
        results: For COCO; None where no probabilities are known.
    """

    row: ScoreRow
    boxes: np.ndarray
    iou: np.ndarray
    error_types: np.ndarray
    results: list[dict[str, Any]] | None


@dataclass(frozen=True)
class Scores:
    """`result` is metrics.json's content; `chosen` holds the first row's boxes of each heatmap."""

    metrics: dict[str, Any]
    headlines: tuple[Headline, ...]


def score_heatmaps(
    test: SplitOutput,
    validation: SplitOutput | None = None,
    *,
    thresholds: np.ndarray,
    fixed: float | None = None,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    seed: int = 0,
) -> Scores:
    """Every score of every heatmap under every policy.

    Args:
        test: The scored split.
        validation: Where the "val" policy picks its threshold, by the images that have a box;
            without it there is none.
        thresholds: (T,) to choose from. Those that give every image the same box as the one before
            are left out.
        fixed: For the policy "fixed:<t>".
        iou_thresholds: Of MaxBoxAcc.
        seed: Of the bootstrap.

    Raises:
        ValueError: some images have no box, the validation images have none, or the masks no
            object.
    """
    if test.truth.boxes.size and not test.truth.boxed.all():
        raise ValueError("some of the images to score have no true box")
    if validation is not None and test.truth.boxes.size and not validation.truth.boxes.size:
        raise ValueError("the validation images have no true boxes to choose a threshold by")
    rows: list[ScoreRow] = []
    chosen: list[Headline] = []
    details: dict[str, dict[str, Any]] = {"curves": {}, "reference": {}, "pixels": {}}
    for name, maps in test.tables.items():
        if test.truth.boxes.size:
            distinct = maps.distinct(thresholds)
            scorer = Scorer(name, test, seed)
            table = maps.ious(test.truth, distinct)
            published = maps.published_ious(test.truth, distinct)
            oracle = scorer.oracle("oracle", distinct, table)
            honest = [
                scorer.at(policy, threshold, maps.ious(test.truth, [threshold]))
                for policy, threshold in _chosen_thresholds(name, validation, thresholds, fixed)
            ]
            rows += [*honest, oracle, scorer.oracle("reference", distinct, published)]
            chosen.append(_headline(honest[0] if honest else oracle, maps, test))
            details["reference"][name] = _reference(maps, published, distinct, iou_thresholds, seed)
            details["curves"][name] = {
                "threshold": distinct.tolist(),
                "gt_known_loc": box_accuracy(table, HIT).tolist(),
            }
        if maps.pixels is not None:
            details["pixels"][name] = _pixels(maps.pixels, test.truth.masks[0].cut, seed)
    return Scores(_result(test, rows, chosen, details, seed), tuple(chosen))


def score_boxes(
    truth: GroundTruth, given: GivenBoxes, *, name: str = "boxes", seed: int = 0
) -> Scores:
    """Scores of boxes that came without heatmaps.

    Raises:
        ValueError: the images have no true boxes.
    """
    if not truth.boxes.size:
        raise ValueError("there are no true boxes to score boxes by")
    test = SplitOutput(truth, given.predictions, {})
    ious = iou(given.boxes[:, None], truth.boxes).max(axis=1, keepdims=True)
    row = Scorer(name, test, seed).at("given", None, ious)
    chosen = [_choose(row, given.boxes, ious[:, 0], test, given.results)]
    scores = _result(test, [row], chosen, {}, seed)
    scores["images_without_box"] = int((~given.found).sum())
    return Scores(scores, tuple(chosen))


def accuracies(test: SplitOutput) -> dict[str, float | None]:
    """Shares of the images whose class is the first, or among the first five, predicted."""
    right = {k: test.correct(k) for k in (1, 5)}
    return {
        f"top{k}_accuracy": None if hit is None else float(hit.mean()) for k, hit in right.items()
    }


def _chosen_thresholds(
    name: str, validation: SplitOutput | None, thresholds: np.ndarray, fixed: float | None
) -> list[tuple[str, float]]:
    """(policy, threshold) of those that never saw the scored images, the headline's first."""
    found = []
    if validation is not None:
        found.append(("val", validation_threshold(validation, name, thresholds)))
    if fixed is not None:
        found.append((f"fixed:{fixed:g}", float(fixed)))
    return found


def validation_threshold(
    validation: SplitOutput, name: str, thresholds: np.ndarray = THRESHOLDS
) -> float:
    """The one of `thresholds` (T,) that gives a heatmap's boxes the most hits, of the images that
    have a true box."""
    maps = validation.tables[name]
    distinct = maps.distinct(thresholds)
    ious = maps.ious(validation.truth, distinct)[validation.truth.boxed]
    return float(distinct[best_threshold(ious, HIT)])


def _headline(row: ScoreRow, maps: BoxTable, test: SplitOutput) -> Headline:
    boxes = rescale(maps.boxes([row.threshold])[:, 0], maps.frame, test.truth.sizes)
    ious = maps.ious(test.truth, [row.threshold])[:, 0]
    known = test.predictions is not None and test.predictions.confidence is not None
    results = coco_results(test.truth, test.predictions, boxes) if known else None
    return _choose(row, boxes, ious, test, results)


def _choose(
    row: ScoreRow,
    boxes: np.ndarray,
    ious: np.ndarray,
    test: SplitOutput,
    results: list[dict[str, Any]] | None,
) -> Headline:
    truth = test.truth
    kinds = ErrorTypes(hit=HIT)(boxes, truth.boxes, truth.counts, test.correct(1))
    return Headline(row, boxes, ious, kinds, results)


def _reference(
    maps: BoxTable,
    published: np.ndarray,
    thresholds: np.ndarray,
    iou_thresholds: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    names = [f"{t:g}" for t in iou_thresholds]
    shares = [max_box_acc(published, t) for t in iou_thresholds]
    resampled = _best_shares(published, iou_thresholds)
    ends = bootstrap(resampled, len(published), seed=seed).T.tolist()
    scores = {
        "policy": "oracle for each IoU",
        "max_box_acc": dict(zip(names, shares, strict=True)),
        "intervals": {"max_box_acc": dict(zip(names, ends, strict=True))},
    }
    if maps.any_iou is not None:
        ious = maps.any_published_ious(thresholds)
        scores["max_box_acc_v2"] = max_box_acc_v2(ious)
        each = _best_shares(ious, IOU_THRESHOLDS)
        ends = bootstrap(lambda drawn: each(drawn).mean(axis=1), len(ious), seed=seed)
        scores["intervals"]["max_box_acc_v2"] = ends.tolist()
    return scores


def _best_shares(
    ious: np.ndarray, iou_thresholds: Sequence[float]
) -> Callable[[np.ndarray], np.ndarray]:
    """A statistic for `bootstrap`, (R, IoUs): MaxBoxAcc of each resample."""
    hits = [(ious >= t).astype(np.float32) for t in iou_thresholds]

    def statistic(drawn: np.ndarray) -> np.ndarray:
        return np.stack([(drawn @ hit).max(axis=1) for hit in hits], axis=1) / len(ious)

    return statistic


def _pixels(counts: np.ndarray, cut: int, seed: int) -> dict[str, Any]:
    scores = {key: float(value) for key, value in pixel_scores(counts.sum(axis=0)).items()}
    if np.isnan(scores["pxap"]):
        raise ValueError(f"the masks hold no object: no pixel is above {cut} (--mask_cut)")
    flat = counts.reshape(len(counts), -1).astype(np.float64)

    def statistic(drawn: np.ndarray) -> np.ndarray:
        pooled = (drawn.astype(np.float64) @ flat).reshape(-1, *counts.shape[1:])
        return np.stack(list(pixel_scores(pooled).values()), axis=1)

    ends = bootstrap(statistic, len(counts), seed=seed).T.tolist()
    return scores | {"mask_cut": cut, "intervals": dict(zip(scores, ends, strict=True))}


def _result(
    test: SplitOutput,
    rows: Sequence[ScoreRow],
    chosen: Sequence[Headline],
    details: Mapping[str, Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    truth = test.truth
    headlines = {}
    for each in chosen:
        shares = class_means(each.iou >= HIT, truth.labels, len(truth.classes)).tolist()
        headlines[each.row.heatmap] = {
            "policy": each.row.policy,
            "threshold": each.row.threshold,
            "coco_ap50": None if each.results is None else average_precision(truth, each.results),
            "errors": {kind: float((each.error_types == kind).mean()) for kind in ERROR_TYPES},
            "class_gt_known_loc": {
                name: None if np.isnan(share) else share
                for name, share in zip(truth.classes, shares, strict=True)
            },
        }
    return {
        "images": len(truth),
        **accuracies(test),
        "localization": [asdict(row) for row in rows],
        "headline": headlines,
        **details,
        "bootstrap_seed": seed,
        "protocol": PROTOCOL,
    }
