"""IG-NORM and IG-SUM-NORM: small integrated gradients of the loss towards an attacked image."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from robust_training.attacks.base import Attack
from robust_training.attacks.pgd import PGD
from robust_training.attribution.gradients import input_gradients, path_integrals
from robust_training.attribution.scores import cross_entropy_score, single
from robust_training.autograd.batch_norm import BatchNormMode
from robust_training.autograd.curvature import Curvature, Score
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
        attack_batch_norm: Mode of BatchNorm during the attack; the authors' networks have none.
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
        change = LossChange(model, label, image, self.beta)
        score = change.norm_score(self.attack_steps, self.attack_curvature)
        if self.adversarial:
            score = change.with_loss(score, self.weight)
        attacked = self.perturb(model, score, image, state)
        norm = change.norm_score(self.steps, self.curvature)(attacked)
        loss = cross_entropy_score(model, label)(attacked if self.adversarial else image)
        return {
            "cross_entropy": reduce(loss, self.reduction),
            "attribution": self.weight * reduce(norm, self.reduction),
        }


@dataclass(frozen=True)
class IGSumNorm(IGNorm):
    """Robust attribution regularization, IG-SUM-NORM (Chen et al., NeurIPS 2019, arXiv 1905.09957).

    Terms: `cross_entropy` on the attacked images, and `attribution` as in `IGNorm`. The attack
    increases their sum, so it needs no random start. For fields and sources, see `IGNorm`. The
    paper calls the weight beta, and it is 1 on GTSRB.
    """

    adversarial: ClassVar[bool] = True


@dataclass(frozen=True)
class LossChange:
    """Attacked images (N,3,H,W) -> integrated gradients of the cross-entropy from `image` to them.

    They sum to the change of the cross-entropy of each image.
    """

    model: Classifier
    label: Tensor
    image: Tensor
    beta: float | None

    def __call__(self, attacked: Tensor, steps: int, curvature: Curvature) -> Tensor:
        loss = smoothly(cross_entropy_score(self.model, self.label), self.model, self.beta)
        gradients = partial(input_gradients, single(loss), create_graph=True, curvature=curvature)
        (change,) = path_integrals(gradients, self.image, attacked, steps=steps)
        return change

    def norm_score(self, steps: int, curvature: Curvature) -> Score:
        """Return the score of IG-NORM's attack: the L1 norm of the integrated gradients."""
        return lambda image: self(image, steps, curvature).abs().flatten(1).sum(dim=1)

    def with_loss(self, norm: Score, weight: float) -> Score:
        """Return the score of IG-SUM-NORM's attack: cross-entropy + weight * norm."""
        loss = cross_entropy_score(self.model, self.label)
        return lambda image: loss(image) + weight * norm(image)
