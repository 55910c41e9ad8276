"""Projected gradient ascent on a score."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robust_training.attacks.base import Attack
from robust_training.attribution.gradients import input_gradient
from robust_training.autograd.curvature import Score


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent (Madry et al., ICLR 2018) on any score.

    Attributes:
        eps: Radius of the ball around the image, in pixel units of [0,1].
        step_size: Length of one step in the same norm.
        steps: Number of steps; with 0 steps the result is the random start.
        random_start: Start at a uniformly random point of the ball instead of at the image.
        norm: "linf" (sign steps) or "l2" (steps along the normalised gradient).
    """

    eps: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    random_start: bool = True
    norm: Literal["linf", "l2"] = "linf"

    def __post_init__(self) -> None:
        if not self.eps >= 0:
            raise ValueError(f"eps of an attack must be 0 or more, not {self.eps}")
        if self.steps < 0 or (self.steps > 0 and not self.step_size > 0):
            raise ValueError(
                f"an attack needs steps >= 0 and step_size > 0, not {self.steps}, {self.step_size}"
            )
        if self.norm not in _GEOMETRY:
            raise ValueError(f"norm of an attack must be one of {list(_GEOMETRY)}, not {self.norm}")

    def start(self, image: Tensor) -> Tensor:
        """Return the start (N,3,H,W) in [0,1], drawn from PyTorch's global generator."""
        if not self.random_start:
            return super().start(image)
        noise = _GEOMETRY[self.norm].uniform(image, self.eps)
        return (image + noise).clamp(0, 1).detach()

    def step(self, score: Score, image: Tensor, perturbed: Tensor) -> Tensor:
        """Return `perturbed` after one ascent step, within eps of `image` and within [0,1]."""
        geometry = _GEOMETRY[self.norm]
        moved = perturbed + self.step_size * geometry.steepest(input_gradient(score, perturbed))
        return (image + geometry.project(moved - image, self.eps)).clamp(0, 1).detach()


class _Linf:
    @staticmethod
    def uniform(image: Tensor, eps: float) -> Tensor:
        return (2 * torch.rand_like(image) - 1) * eps

    @staticmethod
    def steepest(gradient: Tensor) -> Tensor:
        return gradient.sign()

    @staticmethod
    def project(perturbation: Tensor, eps: float) -> Tensor:
        return perturbation.clamp(-eps, eps)


class _L2:
    @staticmethod
    def uniform(image: Tensor, eps: float) -> Tensor:
        radius = torch.rand(len(image), 1, 1, 1, device=image.device, dtype=image.dtype)
        radius = radius ** (1 / image[0].numel())
        return eps * radius * _L2.steepest(torch.randn_like(image))

    @staticmethod
    def steepest(gradient: Tensor) -> Tensor:
        norm = _L2.norm(gradient)
        return gradient / norm.masked_fill(norm == 0, torch.inf)

    @staticmethod
    def project(perturbation: Tensor, eps: float) -> Tensor:
        norm = _L2.norm(perturbation)
        return torch.where(norm > eps, perturbation * (eps / norm), perturbation)

    @staticmethod
    def norm(images: Tensor) -> Tensor:
        return images.flatten(1).norm(dim=1)[:, None, None, None]


_GEOMETRY = {"linf": _Linf, "l2": _L2}
