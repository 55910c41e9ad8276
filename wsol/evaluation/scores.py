"""Computes all scores of a split, as in metrics.json, from its box tables.

A box table (`box_table`) has an image's boxes at all thresholds. `threshold_policy` chooses
thresholds and computes IoUs with the true boxes, `score_rows` counts hits, and this module collects
the rows.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from wsol.annotations.coco_reading import GivenBoxes
from wsol.annotations.coco_writing import coco_results
from wsol.annotations.ground_truth import GroundTruth
from wsol.boxes.geometry import iou, rescale
from wsol.boxes.plausibility import doubt
from wsol.evaluation import IOU_THRESHOLDS
from wsol.evaluation.error_types import ERROR_TYPES, error_types
from wsol.evaluation.metrics import (
    HIT,
    average_precision,
    bootstrap,
    box_accuracy,
    class_means,
    max_box_acc,
    max_box_acc_v2,
)
from wsol.evaluation.pixel_metrics import pixel_scores
from wsol.evaluation.results import Headline, Scores
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.score_rows import ScoreRow, score_row
from wsol.evaluation.threshold_policy import (
    POLICIES,
    PolicyIous,
    apply_policies,
    validation_threshold,
)

_SAME = 0.99  # boxes in files are rounded to 0.01 pixels, so equal boxes have an IoU just below 1

PROTOCOL = (
    "The heatmap is computed for the true class. The box encloses the largest contour. IoU is "
    "computed on half-open boxes in pixels of the image files; a hit is an IoU of at least 0.5. "
    "Top-1 and Top-5 Loc count a hit only if the true class is among the first one or five "
    "predictions. Threshold policies: "
    + " ".join(f"{name}: {sentence}" for name, sentence in POLICIES.items())
    + " MaxBoxAcc and MaxBoxAccV2 use an oracle threshold for each IoU. PxAP has no threshold; "
    "pIoU uses the threshold that is best on the scored images. AP50 is COCO's AP at IoU 0.5, with "
    "the predicted class and its probability, for the boxes of the headline policy. Intervals are "
    "95 % bootstrap intervals (1000 resamples of images). An oracle threshold is chosen again in "
    "each resample; other thresholds are fixed."
)


def require_true_boxes(test: GroundTruth, validation: GroundTruth | None) -> None:
    """Raises ValueError if only some test images have a true box, or if test images have true boxes
    and validation images do not."""
    if test.boxes.size and not test.boxed.all():
        raise ValueError("some of the images to score have no true box")
    if validation is not None and test.boxes.size and not validation.boxes.size:
        raise ValueError("the validation images have no true boxes for choosing a threshold")


def score_heatmaps(
    test: SplitOutput,
    validation: SplitOutput | None = None,
    *,
    thresholds: np.ndarray,
    chosen: Mapping[str, float] | None = None,
    fixed: float | None = None,
    unboxed: Mapping[str, float] | None = None,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    seed: int = 0,
) -> Scores:
    """Scores every kind of heatmap under every threshold policy.

    Args:
        validation: The threshold of the policy "val" is chosen on the images of this split that
            have a box. If None, it is in `chosen`, or there is no such policy.
        thresholds: (T,), the candidate thresholds. A threshold that gives every image the same box
            as the one before is left out.
        chosen: Heatmap -> threshold that was chosen on validation images before.
        fixed: The threshold of the policy "fixed:<t>". If None, there is no such policy.
        unboxed: Heatmap -> threshold of the policy "unboxed", if there is any.
        iou_thresholds: IoU thresholds of MaxBoxAcc.

    Raises:
        ValueError: some images have no true box, no validation image has one, or the masks have no
            object pixels.
    """
    require_true_boxes(test.truth, None if validation is None else validation.truth)
    rows: list[ScoreRow] = []
    headlines: list[Headline] = []
    details: dict[str, dict[str, Any]] = {"curves": {}, "reference": {}, "pixels": {}, "checks": {}}
    for name, table in test.tables.items():
        if test.truth.boxes.size:
            known = (chosen or {}).get(name)
            if validation is not None:
                known = validation_threshold(validation, name, thresholds)
            free = (unboxed or {}).get(name)
            choices = apply_policies(name, test, known, thresholds, fixed, free)
            scored = [score_row(name, choice, test, seed=seed) for choice in choices]
            rows += scored
            headlines.append(_heatmap_headline(scored[0], test))
            *_, oracle, reference = choices
            details["checks"][name] = {"copied": _copied(oracle.ious, test.correct(1))}
            if validation is not None:
                details["checks"][name] |= _validation_checks(validation, name, thresholds)
            every = None
            if table.any_iou is not None:
                every = table.any_published_ious(reference.thresholds)
            details["reference"][name] = _max_box_acc(
                "oracle for each IoU", reference.ious, every, iou_thresholds, seed
            )
            details["curves"][name] = {
                "threshold": oracle.thresholds.tolist(),
                "gt_known_loc": box_accuracy(oracle.ious).tolist(),
            }
        if table.pixels is not None:
            details["pixels"][name] = _pixel_scores(table.pixels, test.truth, seed)
    return Scores(_metrics(test, rows, headlines, details, seed), tuple(headlines), test)


def score_boxes(
    truth: GroundTruth, given: GivenBoxes, *, name: str = "boxes", seed: int = 0
) -> Scores:
    """Scores boxes that were given without heatmaps, so there is no threshold to choose for
    MaxBoxAcc and MaxBoxAccV2. Raises ValueError if the images have no true boxes."""
    if not truth.boxes.size:
        raise ValueError("the images have no true boxes to compare with")
    test = SplitOutput(truth, given.predictions, {})
    ious = iou(given.boxes[:, None], truth.boxes).max(axis=1, keepdims=True)
    row = score_row(name, PolicyIous("given", None, ious), test, seed=seed)
    headline = _headline(row, given.boxes, ious[:, 0], test, given.results)
    details = {
        "checks": {name: {"copied": _copied(ious, test.correct(1))}},
        "reference": {name: _max_box_acc("given", ious, ious, IOU_THRESHOLDS, seed)},
    }
    metrics = _metrics(test, [row], [headline], details, seed)
    metrics["images_without_box"] = int((~given.found).sum())
    return Scores(metrics, (headline,), test)


def _copied(ious: np.ndarray, correct: np.ndarray | None) -> float | None:
    """Fraction of images whose box equals a true box to the pixel, at the threshold with most such
    images. True boxes that were made by this model, and were not drawn by hand, are found by it.

    `ious` (N,T) are of boxes of the true class. Only images where `correct`, bool (N,), is true
    count, because the boxes that a model proposes are those of the predicted class; all images if
    `correct` is None. The result is None if fewer than 5 images count: some box of one image may be
    equal by chance."""
    counted = ious if correct is None else ious[correct]
    return max_box_acc(counted, _SAME) if len(counted) >= 5 else None


def _validation_checks(
    validation: SplitOutput, name: str, thresholds: np.ndarray
) -> dict[str, Any]:
    """Number of boxes that choose the threshold, and `_copied` of them."""
    table, boxed, correct = validation.tables[name], validation.truth.boxed, validation.correct(1)
    ious = table.ious(validation.truth, table.distinct(thresholds))[boxed]
    copied = _copied(ious, None if correct is None else correct[boxed])
    return {"validation_boxes": int(boxed.sum()), "validation_copied": copied}


def accuracies(output: SplitOutput) -> dict[str, float | None]:
    """Top-1 and top-5 accuracy: fraction of images with the true class as the first prediction, or
    among the first five."""
    correct = {k: output.correct(k) for k in (1, 5)}
    return {
        f"top{k}_accuracy": None if hit is None else float(hit.mean()) for k, hit in correct.items()
    }


def _heatmap_headline(row: ScoreRow, test: SplitOutput) -> Headline:
    table = test.tables[row.heatmap]
    boxes = rescale(table.boxes([row.threshold])[:, 0], table.frame, test.truth.sizes)
    ious = table.ious(test.truth, [row.threshold])[:, 0]
    has_confidence = test.predictions is not None and test.predictions.confidence is not None
    results = coco_results(test.truth, test.predictions, boxes) if has_confidence else None
    return _headline(row, boxes, ious, test, results)


def _headline(
    row: ScoreRow,
    boxes: np.ndarray,
    ious: np.ndarray,
    test: SplitOutput,
    results: list[dict[str, Any]] | None,
) -> Headline:
    types = error_types(boxes, test.truth.boxes, test.truth.counts, test.correct(1))
    return Headline(row, boxes, ious, types, results)


def _max_box_acc(
    policy: str,
    ious: np.ndarray,
    every: np.ndarray | None,
    iou_thresholds: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """MaxBoxAcc of IoUs (N,T) at T thresholds and, of the best IoUs of all boxes `every` (N,T),
    MaxBoxAccV2."""
    names = [f"{t:g}" for t in iou_thresholds]
    values = [max_box_acc(ious, t) for t in iou_thresholds]
    ends = bootstrap(_resampled_max_box_acc(ious, iou_thresholds), len(ious), seed=seed).T.tolist()
    scores = {
        "policy": policy,
        "max_box_acc": dict(zip(names, values, strict=True)),
        "intervals": {"max_box_acc": dict(zip(names, ends, strict=True))},
    }
    if every is not None:
        scores["max_box_acc_v2"] = max_box_acc_v2(every)
        each = _resampled_max_box_acc(every, IOU_THRESHOLDS)
        ends = bootstrap(lambda drawn: each(drawn).mean(axis=1), len(every), seed=seed)
        scores["intervals"]["max_box_acc_v2"] = ends.tolist()
    return scores


def _resampled_max_box_acc(
    ious: np.ndarray, iou_thresholds: Sequence[float]
) -> Callable[[np.ndarray], np.ndarray]:
    """A statistic for `bootstrap`: MaxBoxAcc of each resample, (R, IoU thresholds)."""
    hits = [(ious >= t).astype(np.float32) for t in iou_thresholds]

    def statistic(drawn: np.ndarray) -> np.ndarray:
        return np.stack([(drawn @ hit).max(axis=1) for hit in hits], axis=1) / len(ious)

    return statistic


def _pixel_scores(counts: np.ndarray, truth: GroundTruth, seed: int) -> dict[str, Any]:
    """Scores over the images with a mask; the bootstrap draws among these images."""
    cut = truth.mask_files[0].cut
    counts = counts[[mask is not None for mask in truth.masks]]
    scores = {key: float(value) for key, value in pixel_scores(counts.sum(axis=0)).items()}
    if np.isnan(scores["pxap"]):
        raise ValueError(f"the masks have no object: no pixel is above {cut} (--mask_cut)")
    flat = counts.reshape(len(counts), -1).astype(np.float64)

    def statistic(drawn: np.ndarray) -> np.ndarray:
        pooled = (drawn.astype(np.float64) @ flat).reshape(-1, *counts.shape[1:])
        return np.stack(list(pixel_scores(pooled).values()), axis=1)

    ends = bootstrap(statistic, len(counts), seed=seed).T.tolist()
    return scores | {
        "mask_cut": cut,
        "images": len(counts),
        "intervals": dict(zip(scores, ends, strict=True)),
    }


def _metrics(
    test: SplitOutput,
    rows: Sequence[ScoreRow],
    headlines: Sequence[Headline],
    details: Mapping[str, Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    """The content of metrics.json."""
    truth = test.truth
    return {
        "images": len(truth),
        **accuracies(test),
        "localization": [asdict(row) for row in rows],
        "headline": {each.row.heatmap: _headline_metrics(each, truth) for each in headlines},
        **details,
        "bootstrap_seed": seed,
        "protocol": PROTOCOL,
    }


def _headline_metrics(headline: Headline, truth: GroundTruth) -> dict[str, Any]:
    results, types = headline.results, headline.error_types
    means = class_means(headline.iou >= HIT, truth.labels, len(truth.classes)).tolist()
    return {
        "policy": headline.row.policy,
        "threshold": headline.row.threshold,
        "doubt": doubt(headline.boxes, truth.sizes),
        "coco_ap50": None if results is None else average_precision(truth, results),
        "errors": {name: float((types == name).mean()) for name in ERROR_TYPES},
        "class_gt_known_loc": {
            name: None if np.isnan(mean) else mean
            for name, mean in zip(_titles(truth.classes), means, strict=True)
        },
    }


def _titles(classes: Sequence[str]) -> list[str]:
    """Class names, with the label behind each name that several classes have."""
    count = Counter(classes)
    return [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(classes)]
