"""How alike two attribution maps of one image are."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from scipy import stats
from torchmetrics.functional.image import structural_similarity_index_measure

SMALLEST = 6  # side of a map in pixels; SSIM's window needs it
Measure = Callable[[np.ndarray, np.ndarray, int], float]


def similarities(first: np.ndarray, second: np.ndarray, k: int) -> dict[str, float]:
    """Every measure of `MEASURES`, by name.

    Args:
        first, second: (H,W), finite and at least 0.
        k: How many of the largest pixels the top-k measures compare.

    Raises:
        ValueError: the shapes differ or are below 6 x 6, a map is negative or not finite, or k is
            not 1 to H*W.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"two maps (H,W) are compared, not {first.shape} and {second.shape}")
    if min(first.shape) < SMALLEST:
        raise ValueError(f"maps must have at least {SMALLEST} pixels a side, not {first.shape}")
    if not 1 <= k <= first.size:
        raise ValueError(f"k must be 1 to the {first.size} pixels of a map, not {k}")
    for values in (first, second):
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError("a map must be finite and at least 0")
    return {name: measure(first, second, k) for name, measure in MEASURES.items()}


def top_k_intersection(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Share of the k largest pixels that both maps have (Ghorbani et al., AAAI 2019)."""
    return float((_largest(first, k) & _largest(second, k)).sum() / k)


def local_top_k_intersection(
    first: np.ndarray, second: np.ndarray, k: int, *, radius: int = 1
) -> float:
    """The same, but a pixel counts where the other map has one within `radius` rows and columns:
    mean of both directions (the locality-sensitive precision and recall of Kamath et al., AAAI
    2024). Top-k intersection takes a shift by one pixel for a loss."""
    masks = _largest(first, k), _largest(second, k)
    window = np.ones((2 * radius + 1,) * 2, np.uint8)
    near = (cv2.dilate(mask.astype(np.uint8), window) > 0 for mask in masks)
    hits = [(mask & other).sum() / k for mask, other in zip(masks[::-1], near, strict=True)]
    return float(np.mean(hits))


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """bool (H,W): the k largest pixels, of equal ones the first."""
    mask = np.zeros(values.size, bool)
    mask[np.argsort(-values, axis=None, kind="stable")[:k]] = True
    return mask.reshape(values.shape)


def kendall(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Kendall's tau-b over all pixels, exact, in n log n; 0 where a map is constant, 1 where both
    are."""
    return _or_constant(stats.kendalltau(first, second).statistic, first, second)


def spearman(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Spearman's rank correlation; constants as for `kendall`."""
    ranks = (stats.rankdata(values) for values in (first, second))
    centred = [rank - rank.mean() for rank in ranks]
    return _or_constant(_cosine(*centred), first, second)


def cosine(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Cosine of the angle between both maps; 0 where one is zero, 1 where both are."""
    if not first.any() and not second.any():
        return 1.0
    return _cosine(first, second)


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float((first * second).sum() / lengths) if lengths > 0 else 0.0


def _or_constant(value: float, first: np.ndarray, second: np.ndarray) -> float:
    constant = [is_constant(values) for values in (first, second)]
    return float(all(constant)) if any(constant) else float(value)


def is_constant(values: np.ndarray) -> bool:
    """Whether a map has nothing to tell pixels apart but rounding."""
    return bool(values.max() - values.min() <= 1e-5 * values.max())


def centre_shift(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Distance in pixels between both maps' centres of mass, whole pixels as in Ghorbani et al.
    (utils.py); a map of zeros has its centre in the middle."""
    # a centre on a whole pixel must not fall below it by rounding
    pixels = [np.floor(_centre(values) + 1e-9) for values in (first, second)]
    return float(np.linalg.norm(pixels[0] - pixels[1]))


def _centre(values: np.ndarray) -> np.ndarray:
    mass = values.sum()
    weights = values / mass if mass > 0 else np.full(values.shape, 1 / values.size)
    return np.array([(weights * axis).sum() for axis in np.indices(values.shape)])


def ssim(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Structural similarity (Wang et al., 2004) of both maps, each scaled to a sum of H*W, with the
    larger one's maximum as range."""
    scaled = [values / (values.mean() or 1) for values in (first, second)]
    span = max(values.max() for values in scaled)
    if span == 0:
        return 1.0
    pair = (torch.from_numpy((values / span).astype(float))[None, None] for values in scaled)
    return float(structural_similarity_index_measure(*pair, data_range=1.0))


MEASURES: dict[str, Measure] = {
    "top_k_intersection": top_k_intersection,
    "local_top_k_intersection": local_top_k_intersection,
    "kendall": kendall,
    "spearman": spearman,
    "cosine": cosine,
    "centre_shift": centre_shift,
    "ssim": ssim,
}
