"""Adversarial training: cross-entropy on images that an attack made worse."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robust_training.attack import PGD
from robust_training.attribution import cross_entropy_score
from robust_training.model import Classifier
from robust_training.modes import BatchNormMode, under_attack
from robust_training.objectives.base import Carried, Objective


@dataclass(frozen=True)
class AdversarialTraining(Objective):
    """Mean cross-entropy on PGD images (Madry et al., ICLR 2018, arXiv 1706.06083).

    Defaults are those of the PGD baseline in ART's CUB code (train_adv.py): eps 2/255, 7 steps of
    0.5/255, random start, the model in training mode throughout.

    Attributes:
        attack: Climbs the cross-entropy.
        attack_batch_norm: BatchNorm during the attack.
    """

    attack: PGD = PGD(eps=2 / 255, step_size=0.5 / 255, steps=7)
    attack_batch_norm: BatchNormMode = "update"

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        return self.carry_on(model, image, label, Carried())

    def carry_on(
        self, model: Classifier, image: Tensor, label: Tensor, carried: Carried
    ) -> dict[str, Tensor]:
        with under_attack(model, self.attack_batch_norm):
            adversarial = self.attack(cross_entropy_score(model, label), image, carried.perturbed)
        carried.perturbed = adversarial
        return {"cross_entropy": F.cross_entropy(model(adversarial), label)}
