"""`attribution_heatmap` in operators that torch.export and ONNX support."""

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from wsol.heatmaps.heatmap import CLIP, Gradient


class ExportedHeatmap(nn.Module):
    """Attribution (N,3,S,S) -> heatmap, float32 (N,S,S) in [0,1], equal to `attribution_heatmap`.

    Both filters are linear and separable, also at borders. Therefore a multiplication by one matrix
    applies both to the rows, and another multiplication applies both to the columns.

    Args:
        side: S, at least 2.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        sigma = Gradient().sigma
        width = 2 * int(4 * sigma + 0.5) + 1
        smooth = cv2.blur(np.eye(side), (1, 3), borderType=cv2.BORDER_CONSTANT)
        smooth = cv2.GaussianBlur(
            smooth, (1, width), sigmaX=sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT
        )
        self.register_buffer("smooth", torch.from_numpy(smooth).float())

    def forward(self, attribution: Tensor) -> Tensor:
        maps = attribution.abs().mean(dim=1)
        low, high = (_percentile(maps.flatten(1), percent) for percent in CLIP)
        maps = _stretched(torch.minimum(torch.maximum(maps, low), high))
        return _stretched(self.smooth @ maps @ self.smooth.T)


def _percentile(values: Tensor, percent: float) -> Tensor:
    """Linearly interpolated percentile of each row, (N,M) -> (N,1,1). Sorts only the tail."""
    place = percent / 100 * (values.shape[1] - 1)
    rank = int(place)
    if percent < 50:
        tail = values.topk(rank + 2, dim=1, largest=False).values
        low, high = tail[:, -2], tail[:, -1]
    else:
        tail = values.topk(values.shape[1] - rank, dim=1).values
        low, high = tail[:, -1], tail[:, -2]
    return (low + (place - rank) * (high - low))[:, None, None]


def _stretched(maps: Tensor) -> Tensor:
    """Stretches each map to [0,1], like `min_max`."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    span = high - low
    return torch.where(span > 0, (maps - low) / torch.where(span > 0, span, 1.0), 0.0)
