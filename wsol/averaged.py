"""Heatmaps averaged over several looks at an image: sizes, mirror images, noise."""

from dataclasses import dataclass
from math import isfinite

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from robust_training.attribution import class_score, smoothgrad
from robust_training.model import Classifier
from wsol.heatmap import HeatmapMethod, attribution_heatmap, min_max


@dataclass(frozen=True)
class Averaged(HeatmapMethod):
    """The mean of a method's heatmaps of the image in several sizes, and of its mirror images.

    Attributes:
        method: Any; one map of it for each size, two with `flip`.
        scales: Sizes, in the image's own. Networks built for one size take 1 alone.
        flip: Mirror images too, their maps mirrored back.
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
                f"{model.backbone.pretrained_cfg['architecture']} takes images of one size: "
                "average over mirror images alone (scales=(1,))"
            )
        maps = [self._at(model, image, label, scale) for scale in self.scales]
        return np.stack([min_max(each) for each in np.mean(maps, axis=0)])

    def fits(self, model: Classifier) -> bool:
        return self._takes_sizes(model) and self.method.fits(model)

    def _takes_sizes(self, model: Classifier) -> bool:
        fixed = model.backbone.pretrained_cfg.get("fixed_input_size", False)
        return not fixed or all(scale == 1 for scale in self.scales)

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
class SmoothGrad(HeatmapMethod):
    """The gradient averaged over noisy copies of the image (Smilkov et al., 2017).

    The noise is the same for every image, whatever its batch; a pass takes one image's copies.

    Attributes:
        samples: Copies, each as dear as one gradient.
        noise: Standard deviation, in pixel units of [0,1].
        sigma: Of the final Gaussian filter, in pixels.
        seed: Of the noise.
    """

    samples: int = 8
    noise: float = 0.1
    sigma: float = 3.0
    seed: int = 0

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        rows = zip(image.split(1), label.split(1), strict=True)
        mean = torch.cat([self._one(model, *row) for row in rows])
        return attribution_heatmap(mean, sigma=self.sigma)

    def _one(self, model: Classifier, image: Tensor, label: Tensor) -> Tensor:
        copies = image.expand(self.samples, -1, -1, -1)
        score = class_score(model, label.expand(self.samples))
        devices = [image.device] if image.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            return smoothgrad(score, copies, samples=1, noise=self.noise).mean(0, keepdim=True)


@dataclass(frozen=True)
class Product(HeatmapMethod):
    """Pixel by pixel, two methods' heatmaps multiplied, such as gradient and class activation.

    A rough map says where, a fine one what (Guided Grad-CAM; Selvaraju et al., ICCV 2017).
    """

    first: HeatmapMethod
    second: HeatmapMethod

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        product = self.first(model, image, label) * self.second(model, image, label)
        return np.stack([min_max(each) for each in product])

    def fits(self, model: Classifier) -> bool:
        return self.first.fits(model) and self.second.fits(model)
