"""AAT and AdvAAT: attributions that keep their pattern under attack."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robust_training.attacks.base import Attack
from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import Attribution, InputGradient, check_attribution
from robust_training.attribution.scores import class_score, cross_entropy_score, single
from robust_training.attribution.similarity import pearson
from robust_training.autograd.batch_norm import BatchNormMode
from robust_training.autograd.curvature import Curvature, Score
from robust_training.autograd.smooth_activation import smoothly
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import AttackingObjective, AttackState, check_at_least


@dataclass(frozen=True)
class AAT(AttackingObjective):
    """Attributional adversarial training (Ivankay et al., BMVC 2021, arXiv 2010.07393).

    Terms: `cross_entropy` on the clean images, and `attribution`,

        weight * mean (1 - Pearson correlation of A(image) and A(attacked image)).

    A is the attribution of the true class, over all pixels and channels. The attack increases
    1 - Pearson. No code was published, so this is a reconstruction. The dissimilarity 1 - Pearson
    comes from secondary sources. Weight, attack, attribution and softplus are not verified; the
    attack has the settings of `IGNorm`.

    Attributes:
        weight: Weight of the attribution term.
        attack: Increases 1 - Pearson; it needs a random start.
        attribution: The attribution A.
        beta: Sharpness of the softplus that replaces ReLU in attributions. If None, ReLU stays.
        curvature: The way in which attributions are differentiated, for the weights.
        attack_curvature: The way in which attributions are differentiated, for the attack.
        attack_batch_norm: Mode of BatchNorm during the attack.
    """

    weight: float = 1.0
    attack: Attack = PGD(eps=8 / 255, step_size=2 / 255, steps=7)
    attribution: Attribution = InputGradient()
    beta: float | None = 50.0
    curvature: Curvature = "exact"
    attack_curvature: Curvature = "exact"
    attack_batch_norm: BatchNormMode = "update"

    adversarial: ClassVar[bool] = False  # whether cross-entropy is attacked and trained as well

    def __post_init__(self) -> None:
        check_at_least(0, self, "weight")
        check_attribution(type(self).__name__, self.attribution)
        self.check_attack(random_start=not self.adversarial)

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        attacked = self.perturb(model, self._attack_score(model, image, label), image, state)
        trained = attacked if self.adversarial else image
        cross_entropy = F.cross_entropy(model(trained), label)
        pair = torch.cat([image, attacked])
        maps = self._maps(model, label.repeat(2), pair, self.curvature)
        distance = 1 - pearson(*maps.chunk(2))
        return {"cross_entropy": cross_entropy, "attribution": self.weight * distance.mean()}

    def _attack_score(self, model: Classifier, image: Tensor, label: Tensor) -> Score:
        loss = cross_entropy_score(model, label)
        clean: Tensor | None = None

        def score(perturbed: Tensor) -> Tensor:
            nonlocal clean
            losses = loss(perturbed) if self.adversarial else None
            if clean is None:
                clean = self._maps(model, label, image, self.attack_curvature).detach()
            distance = 1 - pearson(
                clean, self._maps(model, label, perturbed, self.attack_curvature)
            )
            return distance if losses is None else losses + self.weight * distance

        return score

    def _maps(
        self, model: Classifier, label: Tensor, image: Tensor, curvature: Curvature
    ) -> Tensor:
        """Return the attributions (N,D) of the true class."""
        scores = smoothly(single(class_score(model, label)), model, self.beta)
        return self.attribution(scores, image, create_graph=True, curvature=curvature)[0].flatten(1)


@dataclass(frozen=True)
class AdvAAT(AAT):
    """Adversarial AAT (Ivankay et al., BMVC 2021, arXiv 2010.07393).

    Terms: `cross_entropy` on the attacked images, and `attribution` as in `AAT`. The attack
    increases their sum, so it needs no random start. For the fields, and for details that are not
    verified, see `AAT`.
    """

    adversarial: ClassVar[bool] = True
