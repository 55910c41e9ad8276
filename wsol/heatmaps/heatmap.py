"""From a classifier and an image to a heatmap: where in the image is the class?

Every method here is a function of (model, images, labels), so gradient maps, class activation maps
and model-free floors go through one pipeline and compare fairly.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from torch import Tensor

from robust_training.attribution.class_activation import class_activation, has_class_activation
from robust_training.attribution.explanation import Attribution
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score, cross_entropy_score, single
from robust_training.models.classifier import Classifier


class HeatmapMethod(ABC):
    """Subclasses are frozen dataclasses without state."""

    @abstractmethod
    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        """Images (N,3,H,W) in [0,1] and classes (N,) -> heatmaps, float64 (N,H,W) in [0,1]."""

    def fits(self, model: Classifier) -> bool:
        """Whether the method works for this network."""
        return True


@dataclass(frozen=True)
class Gradient(HeatmapMethod):
    """Input-gradient magnitude, post-processed as in ART's localization code (util_eval.py).

    Attributes:
        score: What is differentiated: the class's "logit", which is what ART trains, or the
            published evaluation's "cross_entropy", whose gradient fades where the network is sure.
        sigma: Of the final Gaussian filter, in pixels.
    """

    score: Literal["logit", "cross_entropy"] = "logit"
    sigma: float = 3.0

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        make = {"cross_entropy": cross_entropy_score, "logit": class_score}[self.score]
        return attribution_heatmap(input_gradient(make(model, label), image), sigma=self.sigma)


@dataclass(frozen=True)
class Attributed(HeatmapMethod):
    """The same of any attribution of the class's logit.

    Attributes:
        attribution: Smoothgrad, integrated gradients, ...
        sigma: Of the final Gaussian filter, in pixels.
    """

    attribution: Attribution
    sigma: float = 3.0

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        (found,) = self.attribution(single(class_score(model, label)), image)
        return attribution_heatmap(found, sigma=self.sigma)


@dataclass(frozen=True)
class CAM(HeatmapMethod):
    """Class activation map (`class_activation`) of a network with a spatial feature map. No ReLU,
    cubic upsampling."""

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        # some devices have no float64
        maps = class_activation(model, image, label).cpu().double().numpy()
        size = image.shape[:-3:-1]
        return np.stack([min_max(cv2.resize(m, size, interpolation=cv2.INTER_CUBIC)) for m in maps])

    def fits(self, model: Classifier) -> bool:
        return has_class_activation(model)


@dataclass(frozen=True)
class CentredBox(HeatmapMethod):
    """The floor: a centred box, whatever the image.

    The map falls linearly from 1 at the centre to 0 at the border, so that threshold t gives the
    box of side 1 - t: the policy that chooses a threshold for other maps chooses the size here. On
    CUB's test images the best side is 0.63 (GT-known 59.5).
    """

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        count, _, height, width = image.shape
        rows, columns = (1 - np.abs((2 * np.arange(n) + 1) / n - 1) for n in (height, width))
        heatmap = min_max(np.minimum(rows[:, None], columns[None, :]))
        return np.broadcast_to(heatmap, (count, height, width))


def attribution_heatmap(
    attribution: Tensor, *, clip: tuple[float, float] = (2, 98), sigma: float = 3.0
) -> np.ndarray:
    """Attribution (N,3,H,W) -> heatmap, float64 (N,H,W) in [0,1] (ART's util_eval.py).

    Mean over channels of the magnitude, clipped to percentiles, 0 to 1, a 3 x 3 mean with a border
    of zeros, a Gaussian filter, 0 to 1. The reference also standardises each image, which the
    percentiles undo, and stretches the whole batch at once, so that its maps depend on their
    batch mates; here each image stands by itself. A constant attribution gives zeros.
    """
    maps = attribution.detach().abs().mean(dim=1).cpu().double().numpy()
    return np.stack([_smooth(_clipped(m, clip), sigma) for m in maps])


def _clipped(values: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    return min_max(np.clip(values, *np.percentile(values, percentiles)))


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    values = cv2.blur(values, (3, 3), borderType=cv2.BORDER_CONSTANT)
    if sigma > 0:
        width = 2 * int(4 * sigma + 0.5) + 1  # SciPy's default reach, which the reference uses
        values = cv2.GaussianBlur(values, (width, width), sigma, borderType=cv2.BORDER_REFLECT)
    return min_max(values)


def min_max(values: np.ndarray) -> np.ndarray:
    """Stretched to [0,1]; zeros where `values` are constant or hold NaN."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
