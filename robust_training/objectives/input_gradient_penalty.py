"""Small gradients of the loss, without double backward."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robust_training.autograd.directional_derivative import Norm, require_norm, slope
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import Objective, require


@dataclass(frozen=True)
class InputGradientPenalty(Objective):
    """Scaleable input gradient regularization (Finlay and Oberman, 2019, arXiv 1905.11468), as in
    the authors' cifar10/train.py.

    Terms: `cross_entropy` on the images, and `input_gradient`,

        weight / 2 * mean || d cross-entropy / d image ||^2,

    the norm by a forward difference along the direction that attains it. The norm is the dual of
    an attack's: "l2" for attacks in l2, "l1" for linf (here divided by the square root of the
    number of entries, as in the code), "linf" for l1. Released models have weight 0.1 or 1.

    Attributes:
        weight: Of the penalty, lambda in the paper.
        norm: Of the gradient.
        step: L2 length of the difference, in pixel units of [0,1].
    """

    weight: float = 0.1
    norm: Norm = "l2"
    step: float = 0.01

    def __post_init__(self) -> None:
        require(self, "weight")
        require(self, "step", above=0)
        require_norm("InputGradientPenalty", self.norm)

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        def loss(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, label, reduction="none")

        logits, slopes = slope(model, loss, image, norm=self.norm, step=self.step)
        return {
            "cross_entropy": loss(logits).mean(),
            "input_gradient": self.weight / 2 * slopes.square().mean(),
        }
