"""Anchors: ART aligns attributions with them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


class Anchor(ABC):
    """Normalised images (N,3,H,W) -> targets of their attribution maps, (N,3,H,W).

    Subclasses are frozen dataclasses. An attack on ART's term differentiates the anchor.
    """

    @abstractmethod
    def __call__(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Image(Anchor):
    """The image itself, as published (Singh et al., ECCV 2020)."""

    def __call__(self, image: Tensor) -> Tensor:
        return image


@dataclass(frozen=True)
class BorderContrast(Anchor):
    """Each channel's difference to its mean over the image's border.

    With the image itself as anchor, a bright background asks for a large attribution as a bright
    object does. Here a background of one colour is near 0, because the border rarely belongs to the
    object (Wei et al., ECCV 2012, call this the boundary prior).

    Attributes:
        width: Width of the border as a fraction of the image's side, in (0,0.5].
    """

    width: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.width <= 0.5:
            raise ValueError(f"width of BorderContrast must lie in (0,0.5], not {self.width}")

    def __call__(self, image: Tensor) -> Tensor:
        rows, columns = (max(1, round(self.width * side)) for side in image.shape[-2:])
        border = torch.ones(image.shape[-2:], dtype=torch.bool, device=image.device)
        border[rows:-rows, columns:-columns] = False
        return image - image[..., border].mean(dim=-1)[..., None, None]


@dataclass(frozen=True)
class Edges(Anchor):
    """Length of each channel's intensity gradient, by Sobel's filters with the border repeated."""

    def __call__(self, image: Tensor) -> Tensor:
        smooth, slope = image.new_tensor([1, 2, 1]) / 4, image.new_tensor([-1, 0, 1]) / 2
        filters = torch.stack([smooth[:, None] * slope, slope[:, None] * smooth])
        padded = F.pad(image.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
        slopes = F.conv2d(padded, filters[:, None])
        # sqrt has no gradient at 0, where an image is constant
        return (slopes.square().sum(dim=1) + 1e-12).sqrt().view_as(image)
