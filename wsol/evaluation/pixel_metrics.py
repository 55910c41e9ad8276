"""Pixel metrics of heatmaps against segmentation masks, pooled over all pixels of a split.

PxAP is the pixel average precision of Choe et al. (CVPR 2020; clovaai/wsolevaluation). pIoU is the
largest IoU over all thresholds (Zhu et al., DA-WSOL, CVPR 2022).
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike

from wsol.annotations.ground_truth import GroundTruth, MaskFiles
from wsol.data.image_files import image_size, read_gray

NOT_SCORED = -1  # value of a mask's pixels that count neither as object nor as background


def bin_edges(thresholds: ArrayLike) -> np.ndarray:
    """Returns the published histogram's edges: the thresholds, then 1, 2 and 3."""
    return np.append(np.asarray(thresholds, np.float64), [1.0, 2.0, 3.0])


def read_mask(files: MaskFiles, shape: tuple[int, int], size: ArrayLike) -> np.ndarray:
    """Reads a mask as int8 of `shape` (H,W): 1 is object, 0 is background, -1 is not scored.

    It is resized by nearest neighbour, as in the published evaluator.

    Args:
        size: (width, height) of the image. The mask must have the same aspect ratio. Zeros if it is
            unknown; each mask is then resized as it is.

    Raises:
        ValueError: a file is missing, is not an image, or has another aspect ratio. The message
            names the file.
    """
    masks = [_read(file, shape, size) > files.cut for file in files.objects]
    mask = np.any(masks, axis=0).astype(np.int8)
    if files.ignore is not None:
        mask[(_read(files.ignore, shape, size) > files.cut) & (mask == 0)] = NOT_SCORED
    return mask


def require_masks(truth: GroundTruth) -> None:
    """Checks all masks of a split before the work begins. Reads little more than their headers.
    Raises ValueError if a file is missing, is not an image, or has another aspect ratio than its
    image; or no mask of the split has an object pixel."""
    for files, size in zip(truth.masks, truth.sizes, strict=bool(truth.masks)):
        if files is None:
            continue
        for file in (*files.objects, *([files.ignore] if files.ignore else [])):
            _require_mask(file, size)
    if truth.masks and not any(
        (read_gray(file) > each.cut).any() for each in truth.mask_files for file in each.objects
    ):
        cut = truth.mask_files[0].cut
        raise ValueError(f"the masks have no object: no pixel is above {cut} (--mask_cut)")


def _require_mask(file: Path, size: ArrayLike) -> None:
    if not file.is_file():
        raise ValueError(f"there is no mask {file}")
    (width, height), (image_width, image_height) = image_size(file), size
    if image_width and abs(width * image_height / image_width - height) > 1:
        raise ValueError(
            f"mask {file} has {width} x {height} pixels, but its image has "
            f"{image_width} x {image_height}"
        )


def _read(file: Path, shape: tuple[int, int], size: ArrayLike) -> np.ndarray:
    _require_mask(file, size)
    return cv2.resize(read_gray(file), shape[::-1], interpolation=cv2.INTER_NEAREST)


def pixel_counts(heatmap: np.ndarray, mask: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Histograms of heatmap values on the object and on the background: int32 (2,B).

    Args:
        heatmap: (H,W) in [0,1].
        mask: (H,W), as from `read_mask`.
        edges: (B+1,) from `bin_edges`.
    """
    bins = [np.histogram(heatmap[mask == part], edges)[0] for part in (1, 0)]
    return np.stack(bins).astype(np.int32)


def pixel_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """PxAP and pIoU in [0,1], each (...), from pooled counts (...,2,B). NaN without objects."""
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
