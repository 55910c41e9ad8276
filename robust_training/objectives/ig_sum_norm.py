"""IG-SUM-NORM: adversarial training with small integrated gradients of the loss."""

from dataclasses import dataclass

from torch import Tensor

from robust_training.attacks.pgd import PGD
from robust_training.attribution.scores import cross_entropy_score
from robust_training.autograd.batch_norm import BatchNormMode
from robust_training.autograd.curvature import Curvature, Score
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import (
    AttackingObjective,
    AttackState,
    Reduction,
    reduce,
    require,
)
from robust_training.objectives.ig_norm import LossChange, l1


@dataclass(frozen=True)
class IGSumNorm(AttackingObjective):
    """Robust attribution regularization, IG-SUM-NORM (Chen et al., NeurIPS 2019, arXiv 1905.09957).

    Terms: `cross_entropy` on the attacked images, and `attribution`,

        weight * || IG(image -> attacked image) ||_1,   IG of the cross-entropy.

    The attack climbs their sum. Fields and sources are those of `IGNorm`; the weight is called beta
    in the paper, and is 1 on GTSRB.
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
        self.require_attack()

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        change = LossChange(model, label, image, self.beta)
        score = loss_and_change(change, self.weight, self.attack_steps, self.attack_curvature)
        adversarial = self.perturb(model, score, image, state)
        norm = l1(change(adversarial, self.steps, self.curvature))
        attacked = cross_entropy_score(model, label)(adversarial)
        return {
            "cross_entropy": reduce(attacked, self.reduction),
            "attribution": self.weight * reduce(norm, self.reduction),
        }


def loss_and_change(change: LossChange, weight: float, steps: int, curvature: Curvature) -> Score:
    """What IG-SUM-NORM's attack climbs: cross-entropy + weight * L1 of its integrated gradients."""
    loss = cross_entropy_score(change.model, change.label)
    return lambda image: loss(image) + weight * l1(change(image, steps, curvature))
