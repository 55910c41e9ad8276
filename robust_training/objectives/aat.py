"""AAT: attributions that keep their pattern under attack."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import Attribution, InputGradient, require_attribution
from robust_training.attribution.scores import class_score, single
from robust_training.attribution.similarity import pearson
from robust_training.autograd.batch_norm import BatchNormMode
from robust_training.autograd.curvature import Curvature, Score, Scores
from robust_training.autograd.smooth_activation import smoothly
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import AttackingObjective, AttackState, require


@dataclass(frozen=True)
class AAT(AttackingObjective):
    """Attributional adversarial training (Ivankay et al., BMVC 2021, arXiv 2010.07393).

    Terms: `cross_entropy` on the clean images, and `attribution`,

        weight * mean (1 - Pearson correlation of A(image) and A(attacked image)),

    A the true class's attribution, every pixel and channel; the attack climbs the dissimilarity.
    No code was published, so this is a reconstruction: that the dissimilarity is 1 - Pearson is
    second-hand; weight, attack, attribution and the softplus copy are not verified (the attack is
    that of `IGNorm`).

    Attributes:
        weight: Of the attribution term.
        attack: Climbs the dissimilarity.
        attribution: A.
        beta: Of the softplus that stands in for ReLU in attributions; None keeps the network.
        curvature: How attributions are differentiated, for the weights.
        attack_curvature: The same for the attack.
        attack_batch_norm: BatchNorm during the attack.
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
        require_attribution("AAT", self.attribution)
        self.require_attack(random_start=True)

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        scores = smooth_class_scores(model, label, self.beta)
        distance = map_distance(self.attribution, scores, image, self.attack_curvature)
        adversarial = self.perturb(model, distance, image, state)
        return {
            "cross_entropy": F.cross_entropy(model(image), label),
            "attribution": self.weight
            * twin_distance(
                self.attribution,
                smooth_class_scores(model, label.repeat(2), self.beta),
                image,
                adversarial,
                self.curvature,
            ),
        }


def smooth_class_scores(model: Classifier, label: Tensor, beta: float | None) -> Scores:
    """The logit of `label`, from the smooth model, as the only one of several scores."""
    return smoothly(single(class_score(model, label)), model, beta)


def map_distance(
    attribution: Attribution, scores: Scores, image: Tensor, curvature: Curvature
) -> Score:
    """1 - Pearson correlation of an image's map with that of `image`, which is computed once."""
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


def twin_distance(
    attribution: Attribution,
    scores: Scores,
    image: Tensor,
    adversarial: Tensor,
    curvature: Curvature,
) -> Tensor:
    """Mean 1 - Pearson correlation of the maps of images and their attacked twins, from one pass
    over both; `scores` are those of the clean images, then of the attacked ones."""
    twins = torch.cat([image, adversarial])
    (maps,) = attribution(scores, twins, create_graph=True, curvature=curvature)
    clean, moved = maps.flatten(1).chunk(2)
    return (1 - pearson(clean, moved)).mean()
