"""Localization scores, from IoUs and predictions. All are shares in [0,1].

Rows are images. An (N,T) table holds the IoU of each image's box with its true box at each of T
heatmap thresholds; who chose the threshold is part of a score and must be said beside it.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torchvision.ops import box_iou

from wsol.boxes import all_boxes, largest_boxes, published_boxes, published_truth

V2_IOU_THRESHOLDS = (0.3, 0.5, 0.7)


def best_iou(boxes: ArrayLike, truths: ArrayLike) -> np.ndarray:
    """For each of `boxes` (K,4), the largest IoU with any of `truths` (G,4); half-open xyxy.

    The empty box (zeros) has IoU 0 with everything.
    """
    overlap = box_iou(
        torch.as_tensor(np.asarray(boxes, np.float64)),
        torch.as_tensor(np.asarray(truths, np.float64)),
    )
    return overlap.nan_to_num(0).amax(dim=1).numpy()


def largest_box_ious(heatmap: np.ndarray, thresholds: ArrayLike, truths: ArrayLike) -> np.ndarray:
    """(T,): IoU of the largest contour's box at each threshold, `truths` in heatmap pixels."""
    return best_iou(largest_boxes(heatmap, thresholds), truths)


def published_box_ious(
    heatmap: np.ndarray, thresholds: ArrayLike, truth: ArrayLike, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """What MaxBoxAcc and MaxBoxAccV2 count, in the published evaluator's pixel conventions.

    Args:
        truth: (4,) true box, inclusive xyxy in an image of `size` (width, height).

    Returns:
        (T,) IoU of the largest contour's box, and (T,) the best IoU of any contour's box.
    """
    frame = heatmap.shape[::-1]
    truths = [published_truth(truth, size, frame)]
    largest = published_boxes(largest_boxes(heatmap, thresholds), frame)
    every = [published_boxes(all_boxes(heatmap, t), frame) for t in np.asarray(thresholds)]
    return best_iou(largest, truths), np.array([best_iou(b, truths).max() for b in every])


def localization_scores(
    iou: np.ndarray, correct: np.ndarray, correct5: np.ndarray, *, iou_threshold: float = 0.5
) -> dict[str, float]:
    """GT-known, Top-1 and Top-5 localization (ILSVRC) at one threshold per image.

    With class-conditional maps the box of a right prediction is the box of the true class, so one
    map per image serves all three.

    Args:
        iou: (N,) of the true class's box.
        correct, correct5: (N,) whether the true class is predicted first, among the first five.
    """
    hit = np.asarray(iou) >= iou_threshold
    return {
        "gt_known_loc": float(np.mean(hit)),
        "top1_loc": float(np.mean(hit & correct)),
        "top5_loc": float(np.mean(hit & correct5)),
    }


def box_accuracy(ious: np.ndarray, iou_threshold: float = 0.5) -> np.ndarray:
    """(T,): share of images that are hits, at each heatmap threshold, from ious (N,T)."""
    return (ious >= iou_threshold).mean(axis=0)


def best_threshold(ious: np.ndarray, iou_threshold: float = 0.5) -> int:
    """Index of the threshold with the most hits in ious (N,T); ties go to the middle one."""
    accuracy = box_accuracy(ious, iou_threshold)
    best = np.flatnonzero(accuracy == accuracy.max())
    return int(best[len(best) // 2])


def max_box_acc(largest_ious: np.ndarray, iou_threshold: float = 0.5) -> float:
    """MaxBoxAcc (Choe et al., CVPR 2020): an oracle picks the threshold on these very images.

    `published_box_ious` gives the table that the published evaluator would make.
    """
    return float(box_accuracy(largest_ious, iou_threshold).max())


def max_box_acc_v2(any_ious: np.ndarray) -> float:
    """MaxBoxAccV2: mean over IoU .3, .5, .7 of MaxBoxAcc from all boxes, one oracle for each."""
    return float(np.mean([max_box_acc(any_ious, t) for t in V2_IOU_THRESHOLDS]))
