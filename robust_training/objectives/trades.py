"""TRADES: predictions that change little under attack."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robust_training.attacks.base import Attack
from robust_training.attacks.pgd import PGD
from robust_training.autograd.batch_norm import BatchNormMode, attack_mode
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import (
    AttackingObjective,
    AttackState,
    check_at_least,
    check_positive,
)


@dataclass(frozen=True)
class TRADES(AttackingObjective):
    """Zhang et al., ICML 2019 (arXiv 1901.08573), as in the authors' trades.py.

    Terms: `cross_entropy` on the clean images, and `consistency`,

        weight * mean KL(p(image) || p(attacked image)).

    The attack increases the divergence and starts at the image plus Gaussian noise. Gradients flow
    through both predictions. Radius, steps and noise are from the authors' CIFAR-10 script. Its
    earliest version has weight 1 and attacks in training mode. Weight 6 and evaluation mode are
    from later versions (not verified).

    Attributes:
        weight: Weight of the divergence: beta in the code, 1 / lambda in the paper.
        attack: Increases the divergence.
        start_noise: Standard deviation of the noise at the attack's start. The noise is needed
            because the divergence has no gradient at the image itself. It is not used if the attack
            has a random start.
        attack_batch_norm: Mode of BatchNorm during the attack; evaluation mode as published.
    """

    weight: float = 6.0
    attack: Attack = PGD(eps=0.031, step_size=0.007, steps=10, random_start=False)
    start_noise: float = 0.001
    attack_batch_norm: BatchNormMode = "running"

    def __post_init__(self) -> None:
        check_at_least(0, self, "weight")
        check_positive(self, "start_noise")
        self.check_attack()

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        if state.perturbed is None:
            state.perturbed = self.attack.start(image)
            if not self.attack.random_start:
                state.perturbed += self.start_noise * torch.randn_like(image)
        with torch.no_grad(), attack_mode(model, self.attack_batch_norm):
            clean = model(image)
        attacked = self.perturb(model, lambda x: divergence(clean, model(x)), image, state)
        logits = model(image)
        moved = divergence(logits, model(attacked)).mean()
        return {"cross_entropy": F.cross_entropy(logits, label), "consistency": self.weight * moved}


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(others)), (N,C) and (N,C) -> (N,)."""
    log_p, log_q = logits.log_softmax(dim=1), others.log_softmax(dim=1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
