"""Marginal density smoothing: small gradients of the density that the logits define."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from robust_training.attribution.gradients import input_gradient
from robust_training.autograd.curvature import Curvature
from robust_training.autograd.directional_derivative import directional_derivative
from robust_training.autograd.smooth_activation import smoothly
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import Objective, check_at_least, check_choice, check_positive


@dataclass(frozen=True)
class MarginalDensity(Objective):
    """Yang et al., ECCV 2024 (arXiv 2407.04370).

    Terms: `cross_entropy` on the images, and `density`,

        weight * mean || d log p / d image ||_2^2,

    The logits f are interpreted as unnormalised log p(image, class). Then log p(image) =
    logsumexp f up to a constant. Its gradient is the sum of the logits' gradients, weighted by the
    softmax. Two other densities are for comparison: the "conditional" log p(class | image), which
    is minus the cross-entropy, and the "joint" log p(image, class), which is the true logit.
    No code was published. The norm and its power, weight, step and softplus are not verified. We
    only know that the paper uses softmax and Taylor approximations.

    Attributes:
        weight: Weight of the density term.
        density: The density with the penalized gradient.
        form: "exact" differentiates the gradient by `curvature`. "taylor" computes its length from
            a forward difference along it, with one more forward pass and no second derivative.
            "softmax_taylor" does so for the sum of the logits weighted by a constant softmax; it is
            for the marginal density only.
        step: L2 length of the difference, in pixel units of [0,1].
        beta: Sharpness of a softplus that replaces ReLU in the exact form. If None, ReLU stays.
        curvature: The way in which the exact form is differentiated.
    """

    weight: float = 0.1
    density: Literal["marginal", "conditional", "joint"] = "marginal"
    form: Literal["exact", "taylor", "softmax_taylor"] = "exact"
    step: float = 0.01
    beta: float | None = None
    curvature: Curvature = "exact"

    def __post_init__(self) -> None:
        check_at_least(0, self, "weight")
        check_positive(self, "step")
        check_choice(self, "density", _DENSITIES)
        check_choice(self, "form", ("exact", "taylor", "softmax_taylor"))
        if self.form == "softmax_taylor" and self.density != "marginal":
            raise ValueError('form "softmax_taylor" is for the marginal density only')

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        log_density = _DENSITIES[self.density](label)
        if self.form == "exact":
            score = smoothly(lambda x: log_density(model(x)), model, self.beta)
            gradient = input_gradient(score, image, create_graph=True, curvature=self.curvature)
            squares = gradient.square().flatten(1).sum(dim=1)
            logits = model(image)
        else:
            if self.form == "softmax_taylor":
                log_density = _held_softmax()
            logits, derivatives = directional_derivative(model, log_density, image, step=self.step)
            squares = derivatives.square()
        return {
            "cross_entropy": F.cross_entropy(logits, label),
            "density": self.weight * squares.mean(),
        }


LogDensity = Callable[[Tensor], Tensor]  # logits (N,C) -> (N,)
_DENSITIES: dict[str, Callable[[Tensor], LogDensity]] = {
    "marginal": lambda label: lambda logits: logits.logsumexp(dim=1),
    "conditional": lambda label: lambda logits: -F.cross_entropy(logits, label, reduction="none"),
    "joint": lambda label: lambda logits: logits.gather(1, label[:, None]).squeeze(1),
}


def _held_softmax() -> LogDensity:
    """Return the sum of the logits weighted by the softmax of the first logits."""
    weights: Tensor | None = None

    def weighted(logits: Tensor) -> Tensor:
        nonlocal weights
        if weights is None:
            weights = logits.detach().softmax(dim=1)
        return (weights * logits).sum(dim=1)

    return weighted
