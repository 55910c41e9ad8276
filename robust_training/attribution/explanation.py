"""Attributions as settings of objectives, attacks and heatmaps, and as functions of one score."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robust_training.attribution.class_activation import class_activation
from robust_training.attribution.gradients import (
    Gradients,
    input_gradient,
    input_gradients,
    path_integrals,
    sum_maps,
)
from robust_training.attribution.scores import class_score, single
from robust_training.autograd.curvature import Curvature, Score, Scores
from robust_training.autograd.smooth_activation import smoothly
from robust_training.models.classifier import Classifier

Maps = Callable[[Tensor], Tensor]  # images (N,3,H,W) -> maps (N,H,W), no pixel below 0


@dataclass(frozen=True)
class Differentiation:
    """The way in which maps are differentiated with respect to the image.

    Attributes:
        create_graph: Whether the maps will be differentiated.
        curvature: The way in which they will be differentiated.
        beta: Sharpness of a softplus that replaces ReLU. If None, ReLU stays.
    """

    create_graph: bool = True
    curvature: Curvature = "exact"
    beta: float | None = None


_NONE = Differentiation(create_graph=False)


class Explanation(ABC):
    """Model, images (N,3,H,W) and classes -> maps (N,H,W), no pixel below 0.

    Subclasses are frozen dataclasses. The map of an image does not depend on other images of the
    batch, is the same in every call, and can be differentiated.
    """

    is_of_class: ClassVar[bool] = True
    """Whether the map explains a class, so that it has no meaning for a wrong prediction."""

    @property
    def points(self) -> int:
        """Number of images at which the network is differentiated for one map."""
        return 1

    @abstractmethod
    def maps(self, model: Classifier, label: Tensor, how: Differentiation = _NONE) -> Maps:
        """Return the function from images to maps of the logits of `label` (N,)."""


class Attribution(Explanation):
    """Several scores and images (N,3,H,W) -> a map (N,3,H,W) of each score, from shared passes.

    Subclasses are frozen dataclasses. Their maps can be differentiated again.
    """

    def __call__(
        self,
        scores: Scores,
        image: Tensor,
        *,
        create_graph: bool = False,
        curvature: Curvature = "exact",
    ) -> tuple[Tensor, ...]:
        gradients = partial(input_gradients, scores, create_graph=create_graph, curvature=curvature)
        return self.from_gradients(gradients, image)

    @abstractmethod
    def from_gradients(self, gradients: Gradients, image: Tensor) -> tuple[Tensor, ...]:
        """Return the map of each score at `image`, from gradients at `image` or other images."""

    def in_units(self, attribution: Tensor, unit: Tensor) -> Tensor:
        """Convert a map to pixels measured in `unit` (1,3,1,1).

        Products of a pixel's change and its gradient do not depend on the unit.
        """
        return attribution

    def maps(self, model: Classifier, label: Tensor, how: Differentiation = _NONE) -> Maps:
        """Return the function from images to magnitudes, summed over channels."""
        scores = smoothly(single(class_score(model, label)), model, how.beta)

        def maps(image: Tensor) -> Tensor:
            graph, curvature = how.create_graph, how.curvature
            (found,) = self(scores, image, create_graph=graph, curvature=curvature)
            return found.abs().sum(dim=1)

        return maps


@dataclass(frozen=True)
class InputGradient(Attribution):
    """The input gradient, d score / d image."""

    def from_gradients(self, gradients: Gradients, image: Tensor) -> tuple[Tensor, ...]:
        return gradients(image)

    def in_units(self, attribution: Tensor, unit: Tensor) -> Tensor:
        return attribution * unit


@dataclass(frozen=True)
class InputXGradient(Attribution):
    """Pixel times gradient, from black (Shrikumar et al., 2016)."""

    def from_gradients(self, gradients: Gradients, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(image * gradient for gradient in gradients(image))


@dataclass(frozen=True)
class IntegratedGradients(Attribution):
    """Integrated gradients (Sundararajan et al., 2017) from black.

    Classes are chosen at the image, the end of the path.

    Attributes:
        steps: Points of the right Riemann sum; each costs one gradient.
    """

    steps: int = 10

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps of IntegratedGradients must be at least 1, not {self.steps}")

    @property
    def points(self) -> int:
        return self.steps

    def from_gradients(self, gradients: Gradients, image: Tensor) -> tuple[Tensor, ...]:
        return path_integrals(gradients, torch.zeros_like(image), image, steps=self.steps)


@dataclass(frozen=True)
class SmoothGrad(Attribution):
    """Mean gradient under Gaussian pixel noise (Smilkov et al., 2017).

    The noise is the same for every image and in every call, so an image always has the same map.

    Attributes:
        samples: Number of noisy copies; each costs one gradient.
        noise: Standard deviation, in pixel units of [0,1].
    """

    samples: int = 8
    noise: float = 0.1

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.noise >= 0:
            raise ValueError(
                "SmoothGrad needs samples of at least 1 and noise of at least 0, not "
                f"{self.samples}, {self.noise}"
            )

    @property
    def points(self) -> int:
        return self.samples

    def from_gradients(self, gradients: Gradients, image: Tensor) -> tuple[Tensor, ...]:
        # a new generator, so that the map of an image does not depend on other images of the batch
        generator = torch.Generator().manual_seed(0)
        shape = (1, *image.shape[1:])
        noises = (torch.randn(shape, generator=generator) for _ in range(self.samples))
        totals = sum_maps(gradients(image + self.noise * noise.to(image)) for noise in noises)
        return tuple(total / self.samples for total in totals)

    def in_units(self, attribution: Tensor, unit: Tensor) -> Tensor:
        return attribution * unit


@dataclass(frozen=True)
class ClassActivation(Explanation):
    """The positive part of a class activation map (Zhou et al., CVPR 2016), resized to the image.

    It needs a network with a spatial feature map.
    """

    def maps(self, model: Classifier, label: Tensor, how: Differentiation = _NONE) -> Maps:
        """Return the function from images to maps, always differentiated exactly.

        Only the head has a second derivative.
        """

        def activation(image: Tensor) -> Tensor:
            with torch.set_grad_enabled(how.create_graph):
                coarse = class_activation(model, image, label, create_graph=how.create_graph)
                size = image.shape[2:]
                return F.interpolate(coarse.relu()[:, None], size, mode="bilinear")[:, 0]

        return smoothly(activation, model, how.beta)


def check_attribution(owner: str, attribution: object) -> None:
    """Raise ValueError if `attribution` cannot be differentiated again."""
    if not isinstance(attribution, Attribution):
        names = ", ".join(kind.__name__ for kind in Attribution.__subclasses__())
        raise ValueError(
            f"attribution of {owner} must be one that can be differentiated ({names}), "
            f"not {attribution!r}"
        )


def input_x_gradient(
    score: Score, image: Tensor, *, create_graph: bool = False, curvature: Curvature = "exact"
) -> Tensor:
    """Return `InputXGradient` (N,3,H,W) of one score. For the arguments, see `input_gradient`."""
    return image * input_gradient(score, image, create_graph=create_graph, curvature=curvature)


def smoothgrad(
    score: Score,
    image: Tensor,
    *,
    samples: int = SmoothGrad.samples,
    noise: float = SmoothGrad.noise,
    create_graph: bool = False,
    curvature: Curvature = "exact",
) -> Tensor:
    """Return `SmoothGrad` (N,3,H,W) of one score. See also `input_gradient`."""
    attribution, scores = SmoothGrad(samples, noise), single(score)
    return attribution(scores, image, create_graph=create_graph, curvature=curvature)[0]


def integrated_gradients(
    score: Score,
    image: Tensor,
    baseline: Tensor | None = None,
    *,
    steps: int = IntegratedGradients.steps,
    create_graph: bool = False,
    curvature: Curvature = "exact",
) -> Tensor:
    """Return integrated gradients (N,3,H,W) of one score from `baseline` to `image`.

    Args:
        baseline: (N,3,H,W). If None, black images.
        steps: Points of the sum; each costs one gradient. More points make the sum over pixels
            closer to the change of the score.
        create_graph, curvature: See `input_gradient`.
    """
    baseline = torch.zeros_like(image) if baseline is None else baseline
    scores = single(score)
    gradients = partial(input_gradients, scores, create_graph=create_graph, curvature=curvature)
    return path_integrals(gradients, baseline, image, steps=steps)[0]
