"""Box tables: the largest box of each heatmap at every threshold, in a few KB per heatmap.

Scores are computed from these tables, so heatmaps are never stored.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wsol.annotations.ground_truth import GroundTruth
from wsol.boxes.component_tree import largest_by_cut
from wsol.boxes.geometry import inclusive, iou, published_boxes, published_truth, rescale
from wsol.boxes.heatmap_boxes import best_of_all_boxes, cuts, to_bytes
from wsol.evaluation.pixel_metrics import NOT_SCORED, pixel_counts, read_mask


@dataclass(frozen=True)
class BoxTable:
    """The boxes of N heatmaps at all thresholds. Heatmaps are converted to bytes, so 256 cuts
    give all possible boxes.

    `box_row` makes the table of one heatmap, without the leading axis.

    Attributes:
        frame: int64 (N,2), width and height of the heatmap.
        peak: int64 (N,), the largest byte of the heatmap.
        largest: int16 (N,256,4), the box of the largest contour at every cut.
        any_iou: float64 (N,256), the best published IoU of all contours' boxes at every cut, or
            None.
        pixels: int32 (N,2,B) from `pixel_counts`, zeros for an image without a mask. None if no
            image has one.
    """

    frame: np.ndarray
    peak: np.ndarray
    largest: np.ndarray
    any_iou: np.ndarray | None
    pixels: np.ndarray | None

    def boxes(self, thresholds: ArrayLike, rows: slice = slice(None)) -> np.ndarray:
        """Largest boxes, int16 (N,T,4), half-open xyxy in the heatmaps' frames."""
        cut = cuts(thresholds, self.peak[rows])
        return self.largest[rows][np.arange(len(cut))[:, None], cut]

    def ious(self, truth: GroundTruth, thresholds: ArrayLike) -> np.ndarray:
        """Best IoU with a true box, (N,T), of half-open boxes in the image files' pixels."""
        return self._ious(
            thresholds,
            lambda boxes, rows: rescale(boxes, self.frame[rows, None], truth.sizes[rows, None]),
            truth.boxes,
        )

    def published_ious(self, truth: GroundTruth, thresholds: ArrayLike) -> np.ndarray:
        """Best IoU with a true box, (N,T), in the published evaluator's pixel conventions."""
        truths = _published(truth.boxes, truth.sizes[:, None], self.frame[:, None])
        return self._ious(
            thresholds,
            lambda boxes, rows: published_boxes(boxes, self.frame[rows, None, :]),
            truths,
        )

    def any_published_ious(self, thresholds: ArrayLike) -> np.ndarray:
        """Best published IoU of all contours' boxes, (N,T)."""
        return np.take_along_axis(self.any_iou, cuts(thresholds, self.peak), axis=1)

    def distinct(self, thresholds: ArrayLike) -> np.ndarray:
        """The thresholds, without those that give every heatmap the same box as the threshold
        before. At most 255 remain if the maximum of all heatmaps is 1."""
        table = cuts(thresholds, np.unique(self.peak))
        return np.asarray(thresholds)[np.sort(np.unique(table, axis=1, return_index=True)[1])]

    def _ious(
        self,
        thresholds: ArrayLike,
        convert: Callable[[np.ndarray, slice], np.ndarray],
        truths: np.ndarray,
    ) -> np.ndarray:
        pieces = []
        for start in range(0, len(self.peak), 256):  # all boxes at once are large in float64
            rows = slice(start, start + 256)
            boxes = convert(self.boxes(thresholds, rows), rows)
            pieces.append(iou(boxes[:, :, None], truths[rows, None]).max(axis=2, initial=0))
        return np.concatenate(pieces)


def split_row(
    heatmap: np.ndarray,
    truth: GroundTruth,
    index: int,
    *,
    edges: np.ndarray | None,
    every_box: bool,
) -> BoxTable:
    """Computes the row of one heatmap (H,W) in [0,1] of an image of a split.

    Args:
        index: The image's row in `truth`.
        edges: From `bin_edges`, for the pixel metrics of a split with masks. If None, pixels are
            not counted.
        every_box: Whether to compute `any_iou`, for MaxBoxAccV2, if images have boxes.

    Raises:
        ValueError: the heatmap or the mask is not valid.
    """
    size, mask, truths = truth.sizes[index], None, None
    if truth.masks and edges is not None and heatmap.ndim == 2:
        files = truth.masks[index]
        if files is None:
            mask = np.full(heatmap.shape, NOT_SCORED, np.int8)
        else:
            mask = read_mask(files, heatmap.shape, size)
    if every_box and truth.boxes.size:
        truths = truth.boxes[index, : truth.counts[index]]
    return box_row(heatmap, truths=truths, size=size, mask=mask, edges=edges)


def box_row(
    heatmap: np.ndarray,
    *,
    truths: np.ndarray | None = None,
    size: ArrayLike | None = None,
    mask: np.ndarray | None = None,
    edges: np.ndarray | None = None,
) -> BoxTable:
    """Computes the row of one heatmap (H,W) in [0,1].

    Args:
        truths: (G,4), the image's true boxes, half-open, for `any_iou`. Needs `size`.
        size: (width, height) of the image.
        mask: (H,W) from `read_mask`, for `pixels`. Needs `edges`.
        edges: From `bin_edges`.
    """
    pixels = to_bytes(heatmap)
    frame = np.array(heatmap.shape[::-1])
    any_iou = None
    if truths is not None:
        any_iou = best_of_all_boxes(pixels, _published(truths, size, frame))
    counts = None if mask is None else pixel_counts(heatmap, mask, edges)
    return BoxTable(frame, np.int64(pixels.max()), largest_by_cut(pixels), any_iou, counts)


def stack_rows(rows: Iterable[BoxTable]) -> BoxTable:
    """Stacks rows to one table."""
    rows = list(rows)

    def column(name: str) -> np.ndarray | None:
        values = [getattr(row, name) for row in rows]
        return None if values[0] is None else np.stack(values)

    return BoxTable(*map(column, ("frame", "peak", "largest", "any_iou", "pixels")))


def _published(boxes: np.ndarray, size: ArrayLike, frame: ArrayLike) -> np.ndarray:
    return published_truth(inclusive(boxes, size), size, frame)
