"""Localization scores as torchmetrics metrics, for training loops outside of this project.

They equal the scores of `tools/evaluate.py` to the last digit. Their states are sums of whole
numbers, so torchmetrics adds them over processes, and `merge_state` over parts of a split.

`update` takes tensors or arrays on any device. `compute` returns a fraction in [0,1] as float64,
and NaN before the first `update`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torchmetrics import Metric

from robust_training.devices import map_in_threads
from wsol.annotations.ground_truth import GroundTruth, make_ground_truth
from wsol.evaluation import IOU_THRESHOLDS, ScoringConfig
from wsol.evaluation.box_table import BoxTable, box_row, stack_rows
from wsol.evaluation.metrics import HIT
from wsol.evaluation.pixel_metrics import bin_edges, pixel_counts, pixel_scores
from wsol.evaluation.run_model import most_probable

_STEP = ScoringConfig().threshold_step


class _Fraction(Metric):
    """A score in [0,1]; more is better."""

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def _tensor(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self.device)


class _BoxScore(_Fraction):
    """Counts the hits at every IoU threshold and threshold of the heatmap."""

    _every_box = False

    def __init__(self, iou_thresholds: Sequence[float], thresholds: ArrayLike) -> None:
        super().__init__()
        self._limits = np.array(iou_thresholds, np.float64)
        self._thresholds = np.array(thresholds, np.float64)
        if not ((self._limits >= 0) & (self._limits <= 1)).all():
            raise ValueError(f"an IoU threshold must lie in [0,1], not {list(iou_thresholds)}")
        shape = len(self._limits), len(self._thresholds)
        self.add_state("hits", torch.zeros(shape, dtype=torch.long), "sum")
        self.add_state("images", torch.tensor(0), "sum")
        # A MetricCollection joins metrics with equal states after the first batch. This constant
        # and its name keep apart metrics of other settings and classes.
        settings = np.concatenate([self._limits, self._thresholds]).astype(np.float32)
        self.add_state(f"settings_of_{type(self).__name__}", torch.from_numpy(settings), "max")

    def update(self, heatmaps: ArrayLike, boxes: Sequence[ArrayLike], sizes: ArrayLike) -> None:
        """Adds images.

        Args:
            heatmaps: (N,H,W) in [0,1], for the true classes. They show the whole images.
            boxes: For each image its true boxes (G,4), or one box (4,): half-open x0, y0, x1, y1
                in the image's pixels.
            sizes: (N,2), width and height of the images in pixels.

        Raises:
            ValueError: a heatmap has a value outside of [0,1] or NaN, an image has no box, a box
                does not lie in its image, or the arguments have other lengths.
        """
        self._count(self._ious(heatmaps, boxes, sizes) >= self._limits[:, None, None])

    def compute(self) -> Tensor:
        """The mean over the IoU thresholds of the score at the best threshold."""
        hits, images = self.hits.cpu().numpy(), int(self.images)
        return self._tensor(np.mean((hits / images).max(axis=1)) if images else np.nan)

    def _ious(
        self, heatmaps: ArrayLike, boxes: Sequence[ArrayLike], sizes: ArrayLike
    ) -> np.ndarray:
        """IoU of each image's box at each threshold, (N,T)."""
        maps, sizes = _array(heatmaps), _array(sizes)
        if not len(maps) == len(boxes) == len(sizes) or sizes.shape != (len(maps), 2):
            raise ValueError(
                f"{len(maps)} heatmaps need as many boxes and sizes (width, height), not "
                f"{len(boxes)} and an array {sizes.shape}"
            )
        names = [f"number {index}" for index in range(len(maps))]
        found = [_array(each).reshape(-1, 4).tolist() for each in boxes]
        truth = make_ground_truth("the batch", names, [0] * len(maps), sizes, found, ["object"])
        if not truth.boxed.all():
            raise ValueError("images without a true box cannot be scored; leave them out")
        return self._overlaps(_table(maps, truth, self._every_box), truth)

    def _overlaps(self, table: BoxTable, truth: GroundTruth) -> np.ndarray:
        return table.ious(truth, self._thresholds)

    def _count(self, hits: ArrayLike) -> None:
        """Adds hits, bool (IoU thresholds,N,T)."""
        self.hits += torch.from_numpy(np.sum(hits, axis=1)).to(self.device)
        self.images += np.shape(hits)[1]


class MaxBoxAcc(_BoxScore):
    """MaxBoxAcc (Choe et al., CVPR 2020): fraction of images whose box has at least this IoU, at
    the best threshold for the images themselves.

    The threshold is an oracle, so the score is an upper bound. Boxes are those of the largest
    contours, in the pixel conventions of clovaai/wsolevaluation: the row `reference` of
    `tools/evaluate.py`.

    Args:
        iou_threshold: The IoU that makes a box a hit, in [0,1].
        threshold_step: Distance between the thresholds tried.
    """

    def __init__(self, iou_threshold: float = HIT, threshold_step: float = _STEP) -> None:
        super().__init__([iou_threshold], ScoringConfig(threshold_step=threshold_step).thresholds)

    def _overlaps(self, table: BoxTable, truth: GroundTruth) -> np.ndarray:
        return table.published_ious(truth, self._thresholds)


class MaxBoxAccV2(_BoxScore):
    """MaxBoxAccV2: mean of MaxBoxAcc over IoU 0.3, 0.5 and 0.7, each with its own best threshold,
    where the box of any contour may be the hit.

    Args:
        threshold_step: Distance between the thresholds tried.
    """

    _every_box = True

    def __init__(self, threshold_step: float = _STEP) -> None:
        super().__init__(IOU_THRESHOLDS, ScoringConfig(threshold_step=threshold_step).thresholds)

    def _overlaps(self, table: BoxTable, truth: GroundTruth) -> np.ndarray:
        return table.any_published_ious(self._thresholds)


class GTKnownLoc(_BoxScore):
    """GT-known Loc: fraction of images whose box has an IoU of at least 0.5, at a fixed threshold.

    IoU is computed on half-open boxes in the images' own pixels. This is the row `fixed:<t>` of
    `tools/evaluate.py`, and its row `val` if the threshold was chosen on validation images.

    Args:
        threshold: Fraction of the heatmap's maximum, in [0,1]. It must not be chosen on the scored
            images.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__([HIT], [ScoringConfig(threshold=threshold).threshold])


class Top1Loc(GTKnownLoc):
    """Top-1 Loc: fraction of images that GT-known Loc counts and whose true class is predicted.

    Args:
        threshold: See `GTKnownLoc`.
    """

    def update(
        self,
        heatmaps: ArrayLike,
        boxes: Sequence[ArrayLike],
        sizes: ArrayLike,
        logits: Tensor,
        labels: ArrayLike,
    ) -> None:
        """Adds images.

        Args:
            heatmaps, boxes, sizes: See `GTKnownLoc.update`.
            logits: (N,C).
            labels: (N,), the true classes, from 0.

        Raises:
            ValueError: the arguments have other lengths, or see `GTKnownLoc.update`.
        """
        labels = _array(labels)
        if labels.shape != (len(heatmaps),) or logits.shape[:-1] != labels.shape:
            raise ValueError(
                f"{len(heatmaps)} heatmaps need as many logits (N,C) and labels (N,), not "
                f"{(*logits.shape,)} and {labels.shape}"
            )
        right = most_probable(logits)[0][:, :1] == labels[:, None]
        self._count([(self._ious(heatmaps, boxes, sizes) >= HIT) & right])


class PxAP(_Fraction):
    """PxAP (Choe et al., CVPR 2020): area under precision over recall of the pixels, pooled over
    all images. It has no threshold. NaN without object pixels.

    Args:
        threshold_step: Width of the histogram's bins.
    """

    def __init__(self, threshold_step: float = _STEP) -> None:
        super().__init__()
        self._edges = bin_edges(ScoringConfig(threshold_step=threshold_step).thresholds)
        bins = len(self._edges) - 1
        self.add_state("pixels", torch.zeros(2, bins, dtype=torch.long), "sum")

    def update(self, heatmaps: ArrayLike, masks: ArrayLike) -> None:
        """Adds images.

        Args:
            heatmaps: (N,H,W) in [0,1], for the true classes.
            masks: (N,H,W): 1 is object, 0 is background, -1 is not scored. `tools/evaluate.py`
                resizes the files' masks to the heatmaps' size by nearest neighbour.

        Raises:
            ValueError: a heatmap has a value outside of [0,1] or NaN, or a mask has another shape
                or another value.
        """
        maps, masks = _array(heatmaps), _array(masks)
        if maps.ndim != 3 or maps.shape != masks.shape or not np.isin(masks, (-1, 0, 1)).all():
            raise ValueError(
                f"masks must hold 1, 0 or -1 and have the heatmaps' shape {maps.shape}, not "
                f"{masks.shape}"
            )
        if not (maps.size and maps.min() >= 0 and maps.max() <= 1):  # false for NaN too
            raise ValueError("heatmaps must lie in [0,1] and hold no NaN")
        for heatmap, mask in zip(maps, masks, strict=True):
            counts = pixel_counts(heatmap, mask, self._edges)
            self.pixels += torch.from_numpy(counts).to(self.device)

    def compute(self) -> Tensor:
        """The area, in [0,1]."""
        return self._tensor(pixel_scores(self.pixels.cpu().numpy())["pxap"].item())


def _array(values: ArrayLike) -> np.ndarray:
    """A tensor on any device, or numbers, as an array. Its floating-point numbers become float64,
    which changes none of them."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


def _table(maps: np.ndarray, truth: GroundTruth, every_box: bool) -> BoxTable:
    def row(index: int) -> BoxTable:
        try:
            truths = truth.boxes[index, : truth.counts[index]] if every_box else None
            return box_row(maps[index], truths=truths, size=truth.sizes[index])
        except ValueError as error:
            raise ValueError(f"heatmap {truth.names[index]} of the batch: {error}") from error

    return stack_rows(map_in_threads(row, range(len(maps))))
