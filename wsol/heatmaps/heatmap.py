"""Heatmaps: the locations in an image that a classifier uses for a class.

Every method here is a function of (model, images, labels). Therefore gradient maps, class
activation maps and baselines without a model are scored by the same code.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Literal

import cv2
import numpy as np
from torch import Tensor, nn

from robust_training.attribution.anchors import Anchor
from robust_training.attribution.class_activation import class_activation, has_class_activation
from robust_training.attribution.explanation import Attribution
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score, cross_entropy_score, single
from robust_training.models.classifier import Classifier

CLIP = (2, 98)  # percentiles of an attribution's magnitude to which a heatmap is clipped


@dataclass(frozen=True)
class Component:
    """The first principal component of a network's features with C channels (`ddt.DDT`).

    Attributes:
        mean: C numbers.
        axis: C numbers, a vector of length 1 that points from the background to the object.
    """

    mean: tuple[float, ...]
    axis: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.axis):
            raise ValueError(
                f"a component has as many numbers in mean as in axis, not {len(self.mean)} and "
                f"{len(self.axis)}"
            )


class HeatmapMethod(ABC):
    """Makes heatmaps. Subclasses are frozen dataclasses: they have settings, but no state."""

    @abstractmethod
    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        """Explains classes (N,) in images (N,3,H,W) in [0,1]: float64 (N,H,W) in [0,1]."""

    def fits(self, model: Classifier) -> bool:
        """Whether the method works for this network."""
        return True

    def with_component(self, find: Callable[[], Component]) -> "HeatmapMethod":
        """Returns the method with a network's principal component, also in the methods that it is
        made of. Most methods need none, and a component that a method already has is kept.

        Args:
            find: Finds the component; called only if it is needed.
        """
        if not is_dataclass(self):
            return self
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        inner = {name: each for name, each in parts.items() if isinstance(each, HeatmapMethod)}
        changed = {name: method.with_component(find) for name, method in inner.items()}
        return replace(self, **changed) if changed else self


class Combined(HeatmapMethod):
    """Makes heatmaps from those of other methods for the same images and classes."""

    @property
    @abstractmethod
    def methods(self) -> tuple[HeatmapMethod, ...]:
        """The other methods."""

    @abstractmethod
    def combine(self, image: Tensor, *heatmaps: np.ndarray) -> np.ndarray:
        """Images (N,3,H,W) and (N,H,W) of each of the `methods` -> (N,H,W) in [0,1]."""

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        return self.combine(image, *(method(model, image, label) for method in self.methods))

    def fits(self, model: Classifier) -> bool:
        return all(method.fits(model) for method in self.methods)


@dataclass(frozen=True)
class Gradient(HeatmapMethod):
    """Input-gradient magnitude, post-processed as in ART's localization code (util_eval.py).

    Attributes:
        score: The function that is differentiated. "logit" is the class's logit, as in ART's
            training. "cross_entropy" is used by the published evaluation. Its gradient vanishes if
            the class's probability is near 1.
        sigma: Standard deviation of the final Gaussian filter, in pixels.
    """

    score: Literal["logit", "cross_entropy"] = "logit"
    sigma: float = 3.0

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        make = {"cross_entropy": cross_entropy_score, "logit": class_score}[self.score]
        return attribution_heatmap(input_gradient(make(model, label), image), sigma=self.sigma)


@dataclass(frozen=True)
class Attributed(HeatmapMethod):
    """Magnitude of any attribution of the class's logit, post-processed like `Gradient`.

    Attributes:
        attribution: SmoothGrad, integrated gradients, or another attribution.
        sigma: Standard deviation of the final Gaussian filter, in pixels.
    """

    attribution: Attribution
    sigma: float = 3.0

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        (found,) = self.attribution(single(class_score(model, label)), image)
        return attribution_heatmap(found, sigma=self.sigma)


@dataclass(frozen=True)
class CAM(HeatmapMethod):
    """Class activation map of a network with a spatial feature map: no ReLU, cubic upsampling."""

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        # some devices have no float64
        maps = class_activation(model, image, label).cpu().double().numpy()
        size = image.shape[:-3:-1]
        return min_max(
            np.stack([cv2.resize(each, size, interpolation=cv2.INTER_CUBIC) for each in maps])
        )

    def fits(self, model: Classifier) -> bool:
        return has_class_activation(model)


@dataclass(frozen=True)
class CentredBox(HeatmapMethod):
    """The baseline: a centred box that ignores the image.

    The map falls linearly from 1 at the centre to 0 at the border, so threshold t gives the box
    with sides 1 - t, as fractions of the image's sides. Therefore the threshold policy chooses the
    box's size. On CUB's test images the best side is 0.63 (GT-known 59.5).
    """

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        count, _, height, width = image.shape
        rows, columns = (1 - np.abs((2 * np.arange(n) + 1) / n - 1) for n in (height, width))
        heatmap = min_max(np.minimum(rows[:, None], columns[None, :]))
        return np.broadcast_to(heatmap, (count, height, width))


@dataclass(frozen=True)
class AnchorMap(HeatmapMethod):
    """The control of ART: magnitude of the anchor itself, post-processed like `Gradient`.

    ART aligns a network's gradient with an anchor. The network has learned more than the anchor
    only if its map scores above this one, which uses no network (but its normalisation).

    Attributes:
        anchor: The anchor of the training.
        sigma: Standard deviation of the final Gaussian filter, in pixels.
    """

    anchor: Anchor
    sigma: float = 3.0

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        return attribution_heatmap(self.anchor(model.normalize(image)), sigma=self.sigma)


def each_heatmap(
    methods: Iterable[HeatmapMethod], model: Classifier, image: Tensor, label: Tensor
) -> Iterator[np.ndarray]:
    """Yields the heatmaps of each method. A method that several methods share is called once."""
    made: list[tuple[HeatmapMethod, np.ndarray]] = []

    def make(method: HeatmapMethod) -> np.ndarray:
        for other, heatmaps in made:
            if method == other:
                return heatmaps
        if isinstance(method, Combined):
            heatmaps = method.combine(image, *map(make, method.methods))
        else:
            heatmaps = method(model, image, label)
        made.append((method, heatmaps))
        return heatmaps

    yield from map(make, methods)


def attribution_heatmap(attribution: Tensor, *, sigma: float = 3.0) -> np.ndarray:
    """Attribution (N,3,H,W) -> heatmap, float64 (N,H,W) in [0,1] (ART's util_eval.py).

    The steps: mean over channels of the magnitude; clip to percentiles; stretch to [0,1]; 3 x 3
    mean with a border of zeros; Gaussian filter; stretch to [0,1]. A constant attribution gives
    zeros. The reference differs in two ways. It standardises each image, which has no effect before
    percentiles. It stretches the whole batch at once, so that a map depends on the other images of
    its batch.
    """
    maps = attribution.detach().abs().mean(dim=1).cpu().double().numpy()
    maps = min_max(np.clip(maps, *np.percentile(maps, CLIP, axis=(1, 2), keepdims=True)))
    return min_max(np.stack([_smooth(each, sigma) for each in maps]))


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    values = cv2.blur(values, (3, 3), borderType=cv2.BORDER_CONSTANT)
    if sigma > 0:
        width = 2 * int(4 * sigma + 0.5) + 1  # SciPy's default reach, which the reference uses
        values = cv2.GaussianBlur(values, (width, width), sigma, borderType=cv2.BORDER_REFLECT)
    return values


def private_copy(model: Classifier) -> Classifier:
    """Copies the layers of a network, but not its weights: both share them.

    Hooks and new layers in the copy have no effect on the network, and other threads may use the
    network at the same time. The copy is in evaluation mode, and its weights need no gradient.
    """
    shared = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in model.parameters()
    }
    shared |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, shared).eval()


def min_max(maps: np.ndarray) -> np.ndarray:
    """Stretches each of the maps (...,H,W) to [0,1]. Zeros if it is constant or contains NaN."""
    low, high = (end(maps, axis=(-2, -1), keepdims=True) for end in (np.min, np.max))
    return np.divide(maps - low, high - low, out=np.zeros_like(maps), where=high > low)
