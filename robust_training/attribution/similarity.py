"""Similarity of two attribution maps, in training (rows of tensors) and in reports (arrays)."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

SMALLEST = 6  # smallest side of a map in `similarities`, in pixels: the window of SSIM needs it


def cosine(first: Tensor, second: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Cosine of the angle between vectors along the last axis, (..., D) -> (...), broadcasting.

    `eps` is added to each norm, as in ART's reference code. A row of zeros has no direction: its
    cosine is 0 with zero gradient, although the plain formula has a gradient of 1/eps. In the first
    step, a new classifier head causes such rows, because it starts at zero.
    """
    return (_unit(first, eps) * _unit(second, eps)).sum(dim=-1)


def _unit(rows: Tensor, eps: float) -> Tensor:
    norm = rows.norm(dim=-1, keepdim=True)
    return rows / (norm + eps).masked_fill(norm == 0, torch.inf)


def pearson(first: Tensor, second: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Pearson correlation along the last axis, (..., D) -> (...); 0 for a constant row."""
    centred = (rows - rows.mean(dim=-1, keepdim=True) for rows in (first, second))
    return cosine(*centred, eps=eps)


def check_top_k(owner: str, top_k: int | float) -> None:
    """Raise ValueError if `top_k` is not a number (int) or a fraction (float) of pixels."""
    if not (0 < top_k <= 1 if isinstance(top_k, float) else top_k >= 1):
        raise ValueError(
            f"top_k of {owner} must be a number of pixels or a fraction in (0, 1], not {top_k}"
        )


def pixel_count(top_k: int | float, size: int) -> int:
    """Return `top_k` of `size` pixels as a number, at least 1; an int `top_k` may exceed `size`."""
    return max(1, round(top_k * size)) if isinstance(top_k, float) else top_k


def top_k_intersection(first: Tensor, second: Tensor, k: int) -> Tensor:
    """Fraction of the k largest entries that two rows have in common (Ghorbani et al., AAAI 2019).

    Shapes (N,D) -> (N,). If entries are equal, the first ones are taken.
    """
    if not 1 <= k <= first.shape[1]:
        raise ValueError(f"k must be 1 to the {first.shape[1]} pixels of the maps, not {k}")
    return (_is_top_k(first, k) & _is_top_k(second, k)).sum(dim=1) / k


def _is_top_k(rows: Tensor, k: int) -> Tensor:
    """bool (N,D): whether an entry is one of the k largest of its row."""
    # a stable order, so that the first of equal entries are taken on every device
    places = rows.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(rows, dtype=torch.bool).scatter(1, places, True)


def similarities(first: np.ndarray, second: np.ndarray, k: int) -> dict[str, float]:
    """Compare two maps by every measure of `MEASURES`.

    Args:
        first, second: (H,W), finite and at least 0.
        k: Number of largest pixels that the top-k measures compare.

    Returns:
        The value of each measure, by its name.

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


def is_constant(values: np.ndarray) -> bool:
    """Whether the pixels of a map (H,W) differ only by rounding."""
    return bool(values.max() - values.min() <= 1e-5 * values.max())


def _top_k_intersection(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """`top_k_intersection` of two maps, in float64."""
    masks = _top_k_masks(first, second, k)
    return (masks[0] & masks[1]).sum().item() / k


def local_top_k_intersection(
    first: np.ndarray, second: np.ndarray, k: int, *, radius: int = 1
) -> float:
    """Top-k intersection that tolerates small shifts (Kamath et al., AAAI 2024).

    A pixel counts if the other map has one of its top k within `radius` rows and columns; the
    result is the mean of both directions (locality-sensitive precision and recall).
    """
    masks = _top_k_masks(first, second, k)
    near = F.max_pool2d(masks.float(), 2 * radius + 1, stride=1, padding=radius) > 0
    hits = (masks & near.flip(0)).sum(dim=(1, 2)).double() / k
    return hits.mean().item()


def _top_k_masks(first: np.ndarray, second: np.ndarray, k: int) -> Tensor:
    """bool (2,H,W): the k largest pixels of each map."""
    maps = torch.stack([torch.tensor(first), torch.tensor(second)])
    return _is_top_k(maps.flatten(1), k).view(maps.shape)


def _kendall(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Kendall's tau-b over all pixels; 0 if one map is constant, 1 if both are."""
    return _unless_constant(stats.kendalltau(first, second).statistic, first, second)


def _spearman(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Spearman's rank correlation; 0 if one map is constant, 1 if both are."""
    ranks = (stats.rankdata(values) for values in (first, second))
    centred = [rank - rank.mean() for rank in ranks]
    return _unless_constant(_array_cosine(*centred), first, second)


def _unless_constant(value: float, first: np.ndarray, second: np.ndarray) -> float:
    constant = [is_constant(values) for values in (first, second)]
    return float(all(constant)) if any(constant) else float(value)


def _cosine(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Cosine of the angle between both maps; 0 if one map is zero, 1 if both are."""
    if not first.any() and not second.any():
        return 1.0
    return _array_cosine(first, second)


def _array_cosine(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float((first * second).sum() / lengths) if lengths > 0 else 0.0


def centre_shift(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Distance between both maps' centres of mass, in pixels.

    Centres are rounded down to whole pixels, as in the code of Ghorbani et al. (utils.py). A map of
    zeros has its centre in the middle.
    """
    # without 1e-9, a rounding error could move a whole number to the pixel before it
    pixels = [np.floor(_centre(values) + 1e-9) for values in (first, second)]
    return float(np.linalg.norm(pixels[0] - pixels[1]))


def _centre(values: np.ndarray) -> np.ndarray:
    mass = values.sum()
    weights = values / mass if mass > 0 else np.full(values.shape, 1 / values.size)
    return np.array([(weights * axis).sum() for axis in np.indices(values.shape)])


def _ssim(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Structural similarity (Wang et al., 2004) of both maps, each scaled to a sum of H*W.

    The range is the larger of the two maxima.
    """
    scaled = [values / (values.mean() or 1) for values in (first, second)]
    span = max(values.max() for values in scaled)
    if span == 0:
        return 1.0
    pair = (torch.from_numpy((values / span).astype(float))[None, None] for values in scaled)
    return float(structural_similarity_index_measure(*pair, data_range=1.0))


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "top_k_intersection": _top_k_intersection,
    "local_top_k_intersection": local_top_k_intersection,
    "kendall": _kendall,
    "spearman": _spearman,
    "cosine": _cosine,
    "centre_shift": centre_shift,
    "ssim": _ssim,
}
