"""Localization metrics from IoUs and predictions, all fractions in [0,1], and bootstrap intervals.

An array (N,T) holds the IoU of each of N images' boxes with its true box at each of T heatmap
thresholds.
"""

import contextlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats

from wsol.annotations.coco_writing import coco_ground_truth
from wsol.annotations.ground_truth import GroundTruth
from wsol.evaluation import IOU_THRESHOLDS

HIT = 0.5  # a box is a hit at this IoU or above


def box_accuracy(ious: np.ndarray, iou_threshold: float = HIT) -> np.ndarray:
    """Fraction of images that are hits at each threshold: ious (N,T) -> (T,)."""
    return (ious >= iou_threshold).mean(axis=0)


def best_threshold(ious: np.ndarray) -> int:
    """Index of the threshold with the most hits in ious (N,T). If several are best, the middle."""
    return int(middle_argmax((ious >= HIT).sum(axis=0)))


def middle_argmax(values: np.ndarray) -> np.ndarray:
    """Index of the largest of values (...,T) in each row. If several are largest, the middle."""
    best = values == values.max(axis=-1, keepdims=True)
    wanted = best.sum(axis=-1, keepdims=True) // 2 + 1
    return (best.cumsum(axis=-1) >= wanted).argmax(axis=-1)


def max_box_acc(largest_ious: np.ndarray, iou_threshold: float = HIT) -> float:
    """MaxBoxAcc (Choe et al., CVPR 2020): box accuracy at the best threshold on these images."""
    return float(box_accuracy(largest_ious, iou_threshold).max())


def max_box_acc_v2(any_ious: np.ndarray) -> float:
    """MaxBoxAccV2: mean of MaxBoxAcc over `IOU_THRESHOLDS`, with the best threshold for each IoU,
    of any_ious (N,T), the best IoU of all contours' boxes."""
    return float(np.mean([max_box_acc(any_ious, t) for t in IOU_THRESHOLDS]))


def average_precision(truth: GroundTruth, results: Sequence[Mapping[str, Any]]) -> float:
    """COCO's AP at IoU 0.5 from COCOeval, in [0,1], of results from `coco_writing.coco_results`."""
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = coco_ground_truth(truth)
        expected.createIndex()
        found = expected.loadRes([dict(result) for result in results])
        run = COCOeval(expected, found, "bbox")
        run.params.iouThrs = np.array([0.5])
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.params.maxDets = [100]
        precision = []
        # COCOeval visits every pair of image and category; only a category's own images have boxes
        for category in sorted({entry["category_id"] for entry in expected.anns.values()}):
            images = set(expected.getImgIds(catIds=[category])) | set(found.catToImgs[category])
            run.params.catIds, run.params.imgIds = [category], sorted(images)
            run.evaluate()
            run.accumulate()
            precision.append(run.eval["precision"].mean())
    return float(np.mean(precision))


def class_means(values: ArrayLike, labels: np.ndarray, classes: int) -> np.ndarray:
    """Mean of values (N,) over each class's images: (classes,), NaN for a class without images."""
    count = np.bincount(labels, minlength=classes)
    total = np.bincount(labels, weights=np.asarray(values, np.float64), minlength=classes)
    return np.divide(total, count, out=np.full(classes, np.nan), where=count > 0)


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    images: int,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> np.ndarray:
    """95 % percentile interval over images drawn with replacement (Efron, 1979).

    Args:
        statistic: Maps the number of times that each image was drawn, whole numbers as float32
            (R,N), to values (R,...). NaN marks a resample without a value. A maximum over
            thresholds is computed again in every resample.
        images: Number of images, N.
        seed: Statistics with the same seed are computed on the same resamples.
        resamples: A multiple of 100.

    Returns:
        (2,...): lower and upper end.
    """
    rng, values = np.random.default_rng(seed), []
    for _ in range(resamples // 100):  # in parts: all at once need much memory
        drawn = rng.integers(images, size=(100, images))
        counts = np.array([np.bincount(row, minlength=images) for row in drawn], np.float32)
        values.append(statistic(counts))
    return np.nanquantile(np.concatenate(values), [0.025, 0.975], axis=0)


def mean_interval(values: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """`bootstrap` of the mean over images: values (N,...) -> (2,...)."""
    return bootstrap(lambda drawn: drawn @ values / len(values), len(values), seed=seed)


def mean_with_interval(values: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """`mean` and 95 % `interval` of values (N,); both None if there are no values."""
    if not len(values):
        return {"mean": None, "interval": None}
    values = np.asarray(values, float)
    return {"mean": float(values.mean()), "interval": mean_interval(values, seed=seed).tolist()}


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (Student's t). The latter is NaN for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * error
