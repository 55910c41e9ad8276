"""Adversarial training: cross-entropy on attacked images."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robust_training.attacks.base import Attack
from robust_training.attacks.pgd import PGD
from robust_training.attribution.scores import cross_entropy_score
from robust_training.autograd.batch_norm import BatchNormMode
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import AttackingObjective, AttackState


@dataclass(frozen=True)
class AdversarialTraining(AttackingObjective):
    """Mean cross-entropy on PGD images (Madry et al., ICLR 2018, arXiv 1706.06083).

    The defaults are from the PGD baseline in ART's CUB code (train_adv.py): eps 2/255, 7 steps of
    0.5/255, random start, the model always in training mode. Kim, Seo and Jeon's study of gradients
    (arXiv 1903.11626, attacks.py) has pixels in [-1,1], so its lengths are halved here. It uses
    PGD(eps=0.001 to 0.02, step_size=0.01, steps=40, random_start=False), or
    PGD(norm="l2", eps=0.04 to 0.8, step_size=1, steps=40, random_start=False). With the latter,
    each step ends on the border of the ball.

    Attributes:
        attack: Increases the cross-entropy.
        attack_batch_norm: Mode of BatchNorm during the attack.
    """

    attack: Attack = PGD(eps=2 / 255, step_size=0.5 / 255, steps=7)
    attack_batch_norm: BatchNormMode = "update"

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        attacked = self.perturb(model, cross_entropy_score(model, label), image, state)
        return {"cross_entropy": F.cross_entropy(model(attacked), label)}
