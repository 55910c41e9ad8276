"""Heatmaps against segmentation masks: PxAP and pIoU, pooled over all pixels of a split.

PxAP is Choe et al.'s (CVPR 2020; clovaai/wsolevaluation), pIoU the largest IoU that any threshold
reaches (Zhu et al., DA-WSOL, CVPR 2022).
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from wsol.truth import MaskFiles

HALF = 127  # CUB's masks have soft edges; DA-WSOL's cut is 0, the published evaluator's too


def bin_edges(thresholds: ArrayLike) -> np.ndarray:
    """The published histogram's edges: the thresholds, then 1, 2 and 3."""
    return np.append(np.asarray(thresholds, np.float64), [1.0, 2.0, 3.0])


def read_mask(files: MaskFiles, shape: tuple[int, int], cut: int = HALF) -> np.ndarray:
    """int8 of `shape` (H,W): 1 object, 0 background, -1 not counted.

    Nearest-neighbour resizing, as published; a pixel above `cut` (0 to 254) is in the mask.

    Raises:
        ValueError: a file is missing or no image; names it.
    """
    masks = [_read(file, shape) > cut for file in files.objects]
    mask = np.any(masks, axis=0).astype(np.int8)
    if files.ignore is not None:
        mask[(_read(files.ignore, shape) > cut) & (mask == 0)] = -1
    return mask


def _read(file: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    if not file.is_file():
        raise ValueError(f"there is no mask {file}")
    pixels = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError(f"mask {file} is not a readable image")
    return cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_NEAREST)


def pixel_counts(heatmap: np.ndarray, mask: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """int64 (2,B): pixels of the object and of the background in each bin of the heatmap's values.

    Args:
        heatmap: (H,W) in [0,1].
        mask: `read_mask`'s.
        edges: (B+1,) from `bin_edges`.
    """
    return np.stack([np.histogram(heatmap[mask == part], edges)[0] for part in (1, 0)])


def pixel_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """PxAP and pIoU in [0,1] from pooled counts (...,2,B), each (...).

    Raises:
        ValueError: there is no object pixel, or no background pixel, at all.
    """
    counts = np.asarray(counts, np.float64)
    if not (counts.sum(axis=-1) > 0).all():
        raise ValueError("the masks hold no object pixel, or no background pixel, at all")
    true, false = np.moveaxis(counts[..., ::-1].cumsum(axis=-1), -2, 0)
    objects = true[..., -1:]
    found = true + false
    precision = np.divide(true, found, out=np.zeros_like(true), where=found > 0)
    steps = np.diff(true / objects, axis=-1)
    return {
        "pxap": (precision[..., 1:] * steps).sum(axis=-1),
        "piou": (true / (objects + false)).max(axis=-1),
    }
