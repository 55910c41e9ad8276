"""An input layer for tiny models: log-gradient images in place of RGB."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogGradient:
    """Images (N,3,H,W) in [0,1] -> spatial differences of their log-luminance, (N,2,H,W).

    Channel 0 is the right neighbour minus the pixel, channel 1 the lower neighbour minus the pixel;
    they are 0 in the last column and row. A difference of logarithms is a ratio, so it does not
    depend on the strength of the light, and few bits are enough. The image sensor of Young et al.
    ("A Data-Compressive 1.5b/2.75b Log-Gradient QVGA Image Sensor", ISSCC 2019) outputs
    log-gradients with 3 and 7 levels. Its circuit and its level values are not copied here.

    Rounding is straight-through: the first and second derivatives are computed from the clipped
    differences.

    Attributes:
        offset: Added to the luminance (0.299 R + 0.587 G + 0.114 B, in [0,1]) before the logarithm.
            Differences of darker pixels still depend on the light, and their noise is reduced.
        bits: Rounds the differences to 2**bits - 1 levels, evenly spaced from -limit to limit; one
            level is 0. If None, differences are not rounded.
        limit: Clips the differences before rounding, in natural logarithms: 1 is a ratio of e. It
            has no effect without bits.
    """

    offset: float = 0.01
    bits: int | None = None
    limit: float = 1.0

    channels: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not self.offset > 0:
            raise ValueError(f"offset of LogGradient must be positive, not {self.offset}")
        if self.bits is not None and self.bits not in range(2, 9):
            raise ValueError(f"bits of LogGradient must be 2 to 8 or None, not {self.bits}")
        if not self.limit > 0:
            raise ValueError(f"limit of LogGradient must be positive, not {self.limit}")

    def __call__(self, image: Tensor) -> Tensor:
        red, green, blue = image.split(1, dim=1)
        light = torch.log(0.299 * red + 0.587 * green + 0.114 * blue + self.offset)
        right = torch.diff(light, dim=3, append=light[..., -1:])
        lower = torch.diff(light, dim=2, append=light[..., -1:, :])
        gradient = torch.cat([right, lower], dim=1)
        return gradient if self.bits is None else self._rounded(gradient, self.bits)

    def _rounded(self, gradient: Tensor, bits: int) -> Tensor:
        step = self.limit / (2 ** (bits - 1) - 1)
        level = gradient.clamp(-self.limit, self.limit) / step
        return step * (level + (torch.round(level) - level).detach())
