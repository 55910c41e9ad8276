"""Combined heatmaps: averaged over sizes and mirror images, or multiplied."""

from dataclasses import dataclass
from math import isfinite

import cv2
import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from robust_training.models.classifier import Classifier
from wsol.heatmaps.heatmap import Combined, HeatmapMethod, min_max


@dataclass(frozen=True)
class Averaged(HeatmapMethod):
    """Averages a method's heatmaps of the image in several sizes, and of its mirror images.

    Attributes:
        method: The method, called once for each size, or twice with `flip`.
        scales: Factors of the image's size. Networks with a fixed input size allow only 1.
        flip: Whether mirror images are included. Their maps are mirrored back.
    """

    method: HeatmapMethod
    scales: tuple[float, ...] = (1.0, 1.25)
    flip: bool = True

    def __post_init__(self) -> None:
        if not self.scales or not all(isfinite(scale) and scale > 0 for scale in self.scales):
            raise ValueError(f"scales of Averaged must be numbers above 0, not {self.scales}")

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        if not self._takes_sizes(model):
            raise ValueError(
                f"{model.architecture} has a fixed input size: average over mirror images only "
                "(scales=(1,))"
            )
        maps = [self._at(model, image, label, scale) for scale in self.scales]
        return min_max(np.mean(maps, axis=0))

    def fits(self, model: Classifier) -> bool:
        return self._takes_sizes(model) and self.method.fits(model)

    def _takes_sizes(self, model: Classifier) -> bool:
        return not model.fixed_size or all(scale == 1 for scale in self.scales)

    def _at(self, model: Classifier, image: Tensor, label: Tensor, scale: float) -> np.ndarray:
        size = tuple(image.shape[2:])
        if scale != 1:
            other = [max(1, round(scale * side)) for side in size]
            image = interpolate(image, other, mode="bilinear", antialias=True)
        maps = self.method(model, image, label)
        if self.flip:
            maps = (maps + self.method(model, image.flip(3), label)[:, :, ::-1]) / 2
        if maps.shape[1:] != size:
            maps = np.stack([cv2.resize(each, size[::-1]) for each in maps])
        return maps


@dataclass(frozen=True)
class Product(Combined):
    """Multiplies two methods' heatmaps pixel by pixel, for example gradient and class activation.

    A coarse map locates the class, and a fine map adds detail (Guided Grad-CAM; Selvaraju et al.,
    ICCV 2017).
    """

    first: HeatmapMethod
    second: HeatmapMethod

    @property
    def methods(self) -> tuple[HeatmapMethod, ...]:
        return self.first, self.second

    def combine(self, image: Tensor, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return min_max(first * second)
