"""AdvAAT: robust attributions and robust predictions from one attack."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import Attribution, InputGradient, require_attribution
from robust_training.attribution.scores import cross_entropy_score
from robust_training.autograd.batch_norm import BatchNormMode
from robust_training.autograd.curvature import Curvature
from robust_training.models.classifier import Classifier
from robust_training.objectives.aat import map_distance, smooth_class_scores, twin_distance
from robust_training.objectives.base import AttackingObjective, AttackState, require


@dataclass(frozen=True)
class AdvAAT(AttackingObjective):
    """Adversarial AAT (Ivankay et al., BMVC 2021, arXiv 2010.07393).

    Terms: `cross_entropy` on the attacked images, and `attribution`,

        weight * mean (1 - Pearson correlation of A(image) and A(attacked image)).

    The attack climbs their sum. What is not verified, and the fields, are as in `AAT`.
    """

    weight: float = 1.0
    attack: PGD = PGD(eps=8 / 255, step_size=2 / 255, steps=7)
    attribution: Attribution = InputGradient()
    beta: float | None = 50.0
    curvature: Curvature = "exact"
    attack_curvature: Curvature = "exact"
    attack_batch_norm: BatchNormMode = "update"

    def __post_init__(self) -> None:
        require(self, "weight")
        require_attribution("AdvAAT", self.attribution)
        self.require_attack()

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        loss = cross_entropy_score(model, label)
        scores = smooth_class_scores(model, label, self.beta)
        distance = map_distance(self.attribution, scores, image, self.attack_curvature)
        adversarial = self.perturb(
            model, lambda x: loss(x) + self.weight * distance(x), image, state
        )
        return {
            "cross_entropy": F.cross_entropy(model(adversarial), label),
            "attribution": self.weight
            * twin_distance(
                self.attribution,
                smooth_class_scores(model, label.repeat(2), self.beta),
                image,
                adversarial,
                self.curvature,
            ),
        }
