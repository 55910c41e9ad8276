"""Heatmaps against segmentation masks: PxAP and pIoU, pooled over all pixels of a split.

PxAP is Choe et al.'s (CVPR 2020; clovaai/wsolevaluation), pIoU the largest IoU that any threshold
reaches (Zhu et al., DA-WSOL, CVPR 2022).
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike

from wsol.annotations.ground_truth import MaskFiles
from wsol.data.image_files import read_gray


def bin_edges(thresholds: ArrayLike) -> np.ndarray:
    """The published histogram's edges: the thresholds, then 1, 2 and 3."""
    return np.append(np.asarray(thresholds, np.float64), [1.0, 2.0, 3.0])


def read_mask(files: MaskFiles, shape: tuple[int, int], size: ArrayLike) -> np.ndarray:
    """int8 of `shape` (H,W): 1 object, 0 background, -1 not counted.

    Nearest-neighbour resizing, as published.

    Args:
        size: (width, height) of the image, whose proportions a mask must have.

    Raises:
        ValueError: a file is missing, no image, or of another shape; names it.
    """
    masks = [_read(file, shape, size) > files.cut for file in files.objects]
    mask = np.any(masks, axis=0).astype(np.int8)
    if files.ignore is not None:
        mask[(_read(files.ignore, shape, size) > files.cut) & (mask == 0)] = -1
    return mask


def _read(file: Path, shape: tuple[int, int], size: ArrayLike) -> np.ndarray:
    if not file.is_file():
        raise ValueError(f"there is no mask {file}")
    pixels = read_gray(file)
    (height, width), (image_width, image_height) = pixels.shape, size
    if abs(width * image_height / image_width - height) > 1:
        raise ValueError(
            f"mask {file} has {width} x {height} pixels, its image {image_width} x {image_height}"
        )
    return cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_NEAREST)


def pixel_counts(heatmap: np.ndarray, mask: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """int32 (2,B): pixels of the object and of the background in each bin of the heatmap's values.

    Args:
        heatmap: (H,W) in [0,1].
        mask: `read_mask`'s.
        edges: (B+1,) from `bin_edges`.
    """
    bins = [np.histogram(heatmap[mask == part], edges)[0] for part in (1, 0)]
    return np.stack(bins).astype(np.int32)


def pixel_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """PxAP and pIoU in [0,1] from pooled counts (...,2,B), each (...); NaN without an object."""
    counts = np.asarray(counts, np.float64)
    true, false = np.moveaxis(counts[..., ::-1].cumsum(axis=-1), -2, 0)
    objects = np.where(true[..., -1:] > 0, true[..., -1:], np.nan)
    found = true + false
    precision = np.divide(true, found, out=np.zeros_like(true), where=found > 0)
    steps = np.diff(true / objects, axis=-1)
    return {
        "pxap": (precision[..., 1:] * steps).sum(axis=-1),
        "piou": (true / (objects + false)).max(axis=-1),
    }
