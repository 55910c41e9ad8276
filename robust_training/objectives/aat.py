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
from robust_training.autograd.curvature import Curvature, Score, Scores
from robust_training.autograd.smooth_activation import smoothly
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import AttackingObjective, AttackState, check_at_least


@dataclass(frozen=True)
class AAT(AttackingObjective):
    """Attributional adversarial training (Ivankay et al., BMVC 2021, arXiv 2010.07393).

    Terms: `cross_entropy` on the clean images, and `attribution`,

        weight * mean (1 - Pearson correlation of A(image) and A(attacked image)).

    A is the attribution of the true class, over all pixels and channels. The attack increases
    1 - Pearson. No code was published, so this is a reconstruction. Secondary sources say that the
    dissimilarity is 1 - Pearson. Weight, attack, attribution and softplus are not verified; the
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
        scores = self._scores(model, label.repeat(2))
        pair = torch.cat([image, attacked])
        (maps,) = self.attribution(scores, pair, create_graph=True, curvature=self.curvature)
        distance = 1 - pearson(*maps.flatten(1).chunk(2))
        return {"cross_entropy": cross_entropy, "attribution": self.weight * distance.mean()}

    def _attack_score(self, model: Classifier, image: Tensor, label: Tensor) -> Score:
        scores = self._scores(model, label)
        distance = map_distance(self.attribution, scores, image, self.attack_curvature)
        if not self.adversarial:
            return distance
        loss = cross_entropy_score(model, label)
        return lambda perturbed: loss(perturbed) + self.weight * distance(perturbed)

    def _scores(self, model: Classifier, label: Tensor) -> Scores:
        return smoothly(single(class_score(model, label)), model, self.beta)


@dataclass(frozen=True)
class AdvAAT(AAT):
    """Adversarial AAT (Ivankay et al., BMVC 2021, arXiv 2010.07393).

    Terms: `cross_entropy` on the attacked images, and `attribution` as in `AAT`. The attack
    increases their sum, so it needs no random start. For the fields, and for details that are not
    verified, see `AAT`.
    """

    adversarial: ClassVar[bool] = True


def map_distance(
    attribution: Attribution, scores: Scores, image: Tensor, curvature: Curvature
) -> Score:
    """Return the score 1 - Pearson correlation between an image's map and the map of `image`."""
    clean: Tensor | None = None

    def maps(image: Tensor) -> Tensor:
        (found,) = attribution(scores, image, create_graph=True, curvature=curvature)
        return found.flatten(1)

    def score(perturbed: Tensor) -> Tensor:
        nonlocal clean
        if clean is None:
            clean = maps(image).detach()
        return 1 - pearson(clean, maps(perturbed))

    return score
