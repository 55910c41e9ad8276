"""IG-NORM and IG-SUM-NORM: small integrated gradients of the loss towards an attacked image."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from robust_training.attacks.base import Attack
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
    check_at_least,
    reduce,
)


@dataclass(frozen=True)
class IGNorm(AttackingObjective):
    """Robust attribution regularization, IG-NORM (Chen et al., NeurIPS 2019, arXiv 1905.09957).

    Terms: `cross_entropy` on the clean images, and `attribution`,

        weight * || IG(image -> attacked image) ||_1,   IG of the cross-entropy.

    The norm is computed for each image, over pixels and channels, and the attack increases it. The
    defaults are from the authors' Flower-17 configuration (128 px; IG-NORM-config.json). For MNIST
    and GTSRB the authors use weight 1. They sum both terms over the batch (`reduction="sum"`).

    Attributes:
        weight: Weight of the attribution term.
        attack: Increases the norm; it needs a random start.
        steps: Points of the path, for the weights.
        attack_steps: Points of the path in the attack (the authors' 50 / approx_factor 10).
        beta: Sharpness of a softplus that replaces ReLU along the path. If None, ReLU stays, as
            published.
        reduction: "mean" over the batch, so that one learning rate fits several methods, or the
            authors' "sum".
        curvature: The way in which gradients along the path are differentiated, for the weights.
        attack_curvature: The way in which they are differentiated in the attack.
        attack_batch_norm: Mode of BatchNorm during the attack. The authors' networks do not have
            BatchNorm.
    """

    weight: float = 0.1
    attack: Attack = PGD(eps=8 / 255, step_size=2 / 255, steps=7)
    steps: int = 50
    attack_steps: int = 5
    beta: float | None = None
    reduction: Reduction = "mean"
    curvature: Curvature = "exact"
    attack_curvature: Curvature = "exact"
    attack_batch_norm: BatchNormMode = "update"

    adversarial: ClassVar[bool] = False  # whether cross-entropy is attacked and trained as well

    def __post_init__(self) -> None:
        check_at_least(0, self, "weight")
        check_at_least(1, self, "steps", "attack_steps")
        self.check_attack(random_start=not self.adversarial)

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        attacked = self.attack_images(model, image, label, state)
        change = self.loss_change(model, image, label, self.steps, self.curvature)
        norm = _norm(change(attacked))
        loss = cross_entropy_score(model, label)(attacked if self.adversarial else image)
        return {
            "cross_entropy": reduce(loss, self.reduction),
            "attribution": self.weight * reduce(norm, self.reduction),
        }

    def attack_images(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> Tensor:
        """Return the attacked images (N,3,H,W)."""
        loss = cross_entropy_score(model, label)
        change = self.loss_change(model, image, label, self.attack_steps, self.attack_curvature)

        def score(perturbed: Tensor) -> Tensor:
            if not self.adversarial:
                return _norm(change(perturbed))
            return loss(perturbed) + self.weight * _norm(change(perturbed))

        return self.perturb(model, score, image, state)

    def loss_change(
        self, model: Classifier, image: Tensor, label: Tensor, steps: int, curvature: Curvature
    ) -> Callable[[Tensor], Tensor]:
        """Return the function from attacked images (N,3,H,W) to integrated gradients (N,3,H,W) of
        the cross-entropy from `image` to them. For each image they sum to its change."""
        loss = smoothly(cross_entropy_score(model, label), model, self.beta)
        gradients = partial(input_gradients, single(loss), create_graph=True, curvature=curvature)
        return lambda attacked: path_integrals(gradients, image, attacked, steps=steps)[0]


def _norm(maps: Tensor) -> Tensor:
    """Return the L1 norm (N,) of each map."""
    return maps.abs().flatten(1).sum(dim=1)


@dataclass(frozen=True)
class IGSumNorm(IGNorm):
    """Robust attribution regularization, IG-SUM-NORM (Chen et al., NeurIPS 2019, arXiv 1905.09957).

    Terms: `cross_entropy` on the attacked images, and `attribution` as in `IGNorm`. The attack
    increases their sum, so it needs no random start. For fields and sources, see `IGNorm`. The
    paper calls the weight beta, and it is 1 on GTSRB.
    """

    adversarial: ClassVar[bool] = True
