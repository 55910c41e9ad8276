"""Which attribution an objective trains on, as a setting."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_training.attribution import input_gradients, path_integrals
from robust_training.curvature import Curvature, Scores


class Attribution(ABC):
    """Several scores and images (N,3,H,W) -> a map (N,3,H,W) of each score, from shared passes.

    Every subclass is a frozen dataclass whose maps can be differentiated again.
    """

    @abstractmethod
    def __call__(
        self,
        scores: Scores,
        image: Tensor,
        *,
        create_graph: bool = False,
        curvature: Curvature = "exact",
    ) -> tuple[Tensor, ...]: ...

    def in_units(self, attribution: Tensor, unit: Tensor) -> Tensor:
        """The map for pixels measured in `unit` (1,3,1,1): the same for products of a pixel's
        change and its gradient."""
        return attribution


@dataclass(frozen=True)
class InputGradient(Attribution):
    """d score / d image."""

    def __call__(
        self,
        scores: Scores,
        image: Tensor,
        *,
        create_graph: bool = False,
        curvature: Curvature = "exact",
    ) -> tuple[Tensor, ...]:
        return input_gradients(scores, image, create_graph=create_graph, curvature=curvature)

    def in_units(self, attribution: Tensor, unit: Tensor) -> Tensor:
        return attribution * unit


@dataclass(frozen=True)
class InputXGradient(Attribution):
    """Pixel times gradient, from black."""

    def __call__(
        self,
        scores: Scores,
        image: Tensor,
        *,
        create_graph: bool = False,
        curvature: Curvature = "exact",
    ) -> tuple[Tensor, ...]:
        found = input_gradients(scores, image, create_graph=create_graph, curvature=curvature)
        return tuple(image * gradient for gradient in found)


@dataclass(frozen=True)
class IntegratedGradients(Attribution):
    """Integrated gradients from black; classes are chosen at the image, the end of the path.

    Attributes:
        steps: Points of the right Riemann sum, each as dear as one gradient.
    """

    steps: int = 10

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps of IntegratedGradients must be at least 1, not {self.steps}")

    def __call__(
        self,
        scores: Scores,
        image: Tensor,
        *,
        create_graph: bool = False,
        curvature: Curvature = "exact",
    ) -> tuple[Tensor, ...]:
        return path_integrals(
            lambda: scores,
            torch.zeros_like(image),
            image,
            steps=self.steps,
            create_graph=create_graph,
            curvature=curvature,
        )


def require_attribution(owner: str, attribution: object) -> None:
    """ValueError unless `attribution` is one that can be differentiated again."""
    if not isinstance(attribution, Attribution):
        names = ", ".join(kind.__name__ for kind in Attribution.__subclasses__())
        raise ValueError(
            f"attribution of {owner} must be one that can be differentiated ({names}), "
            f"not {attribution!r}"
        )
