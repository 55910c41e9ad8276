"""Localization scores, from IoUs and predictions. All are shares in [0,1].

Rows are images. An (N,T) table holds the IoU of each image's box with its true box at each of T
heatmap thresholds; who chose the threshold is part of a score and must be said beside it.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

IOU_THRESHOLDS = (0.3, 0.5, 0.7)  # of MaxBoxAccV2


def box_accuracy(ious: np.ndarray, iou_threshold: float = 0.5) -> np.ndarray:
    """(T,): share of images that are hits, at each heatmap threshold, from ious (N,T)."""
    return (ious >= iou_threshold).mean(axis=0)


def best_threshold(ious: np.ndarray, iou_threshold: float = 0.5) -> int:
    """Index of the threshold with the most hits in ious (N,T); ties go to the middle one."""
    return int(middle_argmax((ious >= iou_threshold).sum(axis=0)))


def middle_argmax(values: np.ndarray) -> np.ndarray:
    """Index of the largest of values (...,T) in each row; of several equal ones the middle one."""
    best = values == values.max(axis=-1, keepdims=True)
    wanted = best.sum(axis=-1, keepdims=True) // 2 + 1
    return (best.cumsum(axis=-1) >= wanted).argmax(axis=-1)


def max_box_acc(largest_ious: np.ndarray, iou_threshold: float = 0.5) -> float:
    """MaxBoxAcc (Choe et al., CVPR 2020): an oracle picks the threshold on these very images."""
    return float(box_accuracy(largest_ious, iou_threshold).max())


def max_box_acc_v2(any_ious: np.ndarray) -> float:
    """MaxBoxAccV2: mean over IoU .3, .5, .7 of MaxBoxAcc from all boxes, one oracle for each."""
    return float(np.mean([max_box_acc(any_ious, t) for t in IOU_THRESHOLDS]))


def class_means(values: ArrayLike, labels: np.ndarray, classes: int) -> np.ndarray:
    """(classes,): mean of the values (N,) over each class's images; NaN for a class without any."""
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
        statistic: How often each image was drawn, float32 (R,N) of whole numbers -> (R,...) values,
            NaN where a resample has none. One that maximises over thresholds does so again in every
            resample.
        images: N.
        seed: The same seed gives the same resamples to every statistic.

    Returns:
        (2,...): lower and upper end.
    """
    values = [statistic(drawn) for drawn in _resamples(images, resamples, seed)]
    return np.nanquantile(np.concatenate(values), [0.025, 0.975], axis=0)


def mean_interval(values: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """`bootstrap` of the mean over images: values (N,...) -> (2,...)."""
    return bootstrap(lambda drawn: drawn @ values / len(values), len(values), seed=seed)


def _resamples(images: int, resamples: int, seed: int, *, chunk: int = 100) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, chunk):
        drawn = rng.integers(images, size=(min(chunk, resamples - start), images))
        yield np.array([np.bincount(row, minlength=images) for row in drawn], np.float32)
