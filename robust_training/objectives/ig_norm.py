"""IG-NORM: the loss's integrated gradients towards an attacked image kept small."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from robust_training.attacks.pgd import PGD
from robust_training.attribution.gradients import input_gradients, path_integrals
from robust_training.attribution.scores import cross_entropy_score, single
from robust_training.autograd.batch_norm import BatchNormMode
from robust_training.autograd.curvature import Curvature
from robust_training.autograd.smooth_activation import smoothly
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import (
    AttackingObjective,
    AttackState,
    Reduction,
    reduce,
    require,
)


@dataclass(frozen=True)
class IGNorm(AttackingObjective):
    """Robust attribution regularization, IG-NORM (Chen et al., NeurIPS 2019, arXiv 1905.09957).

    Terms: `cross_entropy` on the clean images, and `attribution`,

        weight * || IG(image -> attacked image) ||_1,   IG of the cross-entropy,

    the norm per image, over pixels and channels, which the attack climbs. Defaults are those of the
    authors' Flower-17 configuration (128 px; IG-NORM-config.json); MNIST and GTSRB have weight 1.
    The authors sum both terms over the batch, which here is `reduction="sum"`.

    Attributes:
        weight: Of the attribution term.
        attack: Climbs the norm; 8/255, 7 steps of 2/255, random start.
        steps: Points of the path for the weights.
        attack_steps: The same for the attack (the authors' 50 / approx_factor 10).
        beta: Of a softplus that stands in for ReLU along the path; None differentiates the network
            itself, as published.
        reduction: "mean" over the batch, so that learning rates carry over between methods, or the
            authors' "sum".
        curvature: How the gradients along the path are differentiated, for the weights.
        attack_curvature: The same for the attack.
        attack_batch_norm: BatchNorm during the attack; the authors' networks have none.
    """

    weight: float = 0.1
    attack: PGD = PGD(eps=8 / 255, step_size=2 / 255, steps=7)
    steps: int = 50
    attack_steps: int = 5
    beta: float | None = None
    reduction: Reduction = "mean"
    curvature: Curvature = "exact"
    attack_curvature: Curvature = "exact"
    attack_batch_norm: BatchNormMode = "update"

    def __post_init__(self) -> None:
        require(self, "weight")
        require(self, "steps", "attack_steps", least=1)
        self.require_attack(random_start=True)

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        change = LossChange(model, label, image, self.beta)
        adversarial = self.perturb(
            model,
            lambda x: l1(change(x, self.attack_steps, self.attack_curvature)),
            image,
            state,
        )
        norm = l1(change(adversarial, self.steps, self.curvature))
        clean = cross_entropy_score(model, label)(image)
        return {
            "cross_entropy": reduce(clean, self.reduction),
            "attribution": self.weight * reduce(norm, self.reduction),
        }


@dataclass(frozen=True)
class LossChange:
    """Attacked images (N,3,H,W) -> integrated gradients of the cross-entropy from the images to
    them, which sum to its change per image."""

    model: Classifier
    label: Tensor
    image: Tensor
    beta: float | None

    def __call__(self, attacked: Tensor, steps: int, curvature: Curvature) -> Tensor:
        loss = smoothly(cross_entropy_score(self.model, self.label), self.model, self.beta)
        gradients = partial(input_gradients, single(loss), create_graph=True, curvature=curvature)
        (change,) = path_integrals(gradients, self.image, attacked, steps=steps)
        return change


def l1(maps: Tensor) -> Tensor:
    """(N,3,H,W) -> (N,)."""
    return maps.abs().flatten(1).sum(dim=1)
