"""How alike two maps are."""

import torch
from torch import Tensor


def cosine(first: Tensor, second: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Cosine of the angle between vectors along the last axis, (..., D) -> (...), broadcasting.

    `eps` is added to each norm, as in ART's reference code. A row of zeros has no direction: its
    cosine is 0 with zero gradient, where the plain formula would return a gradient of 1/eps. A new
    zero-initialised classifier head gives such rows in the first step.
    """
    return (_unit(first, eps) * _unit(second, eps)).sum(dim=-1)


def _unit(rows: Tensor, eps: float) -> Tensor:
    norm = rows.norm(dim=-1, keepdim=True)
    return rows / (norm + eps).masked_fill(norm == 0, torch.inf)


def pearson(first: Tensor, second: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Pearson correlation along the last axis, (..., D) -> (...); 0 where a row is constant."""
    centred = (rows - rows.mean(dim=-1, keepdim=True) for rows in (first, second))
    return cosine(*centred, eps=eps)


def require_top_k(owner: str, top_k: int | float) -> None:
    """ValueError unless it is a number of pixels (int) or a share of them (float)."""
    if not (0 < top_k <= 1 if isinstance(top_k, float) else top_k >= 1):
        raise ValueError(
            f"top_k of {owner} must be a number of pixels or a share in (0, 1], not {top_k}"
        )


def pixel_count(top_k: int | float, size: int) -> int:
    """How many of `size` pixels that is, at least 1; a number of them may exceed `size`."""
    return max(1, round(top_k * size)) if isinstance(top_k, float) else top_k


def top_k_intersection(first: Tensor, second: Tensor, k: int) -> Tensor:
    """Share of the k largest entries of rows (N,D) that two maps have in common, (N,) (Ghorbani et
    al., AAAI 2019)."""
    if not 1 <= k <= first.shape[1]:
        raise ValueError(f"k must be 1 to the {first.shape[1]} pixels of the maps, not {k}")
    marks = (
        # a stable order: of equal entries the first count, on every device
        torch.zeros_like(rows, dtype=torch.bool).scatter(
            1, rows.argsort(dim=1, descending=True, stable=True)[:, :k], True
        )
        for rows in (first, second)
    )
    return torch.logical_and(*marks).sum(dim=1) / k
