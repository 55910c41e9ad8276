"""Small gradients of the loss, without double backward."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robust_training.autograd.directional_derivative import STEEPEST, Norm, directional_derivative
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import Objective, check_at_least, check_choice, check_positive


@dataclass(frozen=True)
class InputGradientPenalty(Objective):
    """Scaleable input gradient regularization (Finlay and Oberman, 2019, arXiv 1905.11468).

    Terms, as in the authors' cifar10/train.py: `cross_entropy` on the images, and
    `input_gradient`,

        weight / 2 * mean || d cross-entropy / d image ||^2.

    A forward difference along the steepest direction gives the norm's value. The norm is the dual
    of an attack's norm: "l2" for attacks in l2, "l1" for linf (divided by the square root of the
    number of entries here, as in the code), "linf" for l1. Released models have weight 0.1
    or 1.

    Attributes:
        weight: Weight of the penalty, lambda in the paper.
        norm: Norm of the gradient.
        step: L2 length of the difference, in pixel units of [0,1].
    """

    weight: float = 0.1
    norm: Norm = "l2"
    step: float = 0.01

    def __post_init__(self) -> None:
        check_at_least(0, self, "weight")
        check_positive(self, "step")
        check_choice(self, "norm", STEEPEST)

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        def loss(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, label, reduction="none")

        logits, derivatives = directional_derivative(
            model, loss, image, norm=self.norm, step=self.step
        )
        return {
            "cross_entropy": loss(logits).mean(),
            "input_gradient": self.weight / 2 * derivatives.square().mean(),
        }
