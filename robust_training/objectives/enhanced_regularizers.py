"""CACR and WACR: class attributions that are contrasted, and changes charged by their weight."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_training.attacks.pgd import PGD
from robust_training.attribution.gradients import input_gradients, path_integrals
from robust_training.attribution.scores import (
    class_and_runner_up_scores,
    class_score,
    cross_entropy_score,
    single,
)
from robust_training.autograd.batch_norm import BatchNormMode
from robust_training.autograd.curvature import Curvature, Scores
from robust_training.autograd.smooth_activation import smoothly
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import (
    AttackingObjective,
    AttackState,
    Reduction,
    reduce,
    require,
)
from robust_training.objectives.ig_norm import LossChange
from robust_training.objectives.ig_sum_norm import loss_and_change


@dataclass(frozen=True)
class EnhancedRegularizers(AttackingObjective):
    """Sarkar et al., AAAI 2021 (arXiv 2012.14395), as in the authors' Flower code (model.py,
    train_our.py), the only one that was published; its attack is IG-SUM-NORM's.

    Terms: `cross_entropy` on the attacked images, and, each times `weight`,

        cacr = KL(U || softmax(n)) - KL(U || softmax(t))
        wacr = sum over same signs of b D + sum over other signs of |D|

    with U uniform over the pixels; t and n the integrated gradients, from black to the attacked
    image and summed over channels, of the probability of the true class and of the runner-up at
    each point of the path; b those of the true class to the clean image; D minus the integrated
    gradients of the cross-entropy from the clean to the attacked image. Signs and runner-up are
    held. `cacr` can be negative, and may be tiny: attributions of a probability sum to 1 at most
    over all pixels, and the divergence is about half their variance. On networks fine-tuned for ten
    classes it was 1e-6 to 1e-5 beside a cross-entropy of 1 to 2, with a gradient of 3e-5 to 3e-4 of
    the cross-entropy's; training warns of such terms.
    Defaults are those of IG-SUM-NORM-config.json, the file that the code opens (its set1.json has
    weight 0.08 and 5 steps). Which one gave the paper's numbers is not known.

    Attributes:
        weight: Of both regularizers.
        cacr, wacr: Which of them; at least one.
        attack: Climbs cross-entropy + weight * L1 of its integrated gradients.
        steps: Points of every path for the weights; a step's time is proportional to it.
        attack_steps: Points of the path in the attack (20 / approx_factor 4).
        beta: Of a softplus that stands in for ReLU along the paths; None differentiates the network
            itself (leaky ReLU, as published).
        reduction: "mean" over the batch, or the authors' "sum".
        curvature: How the gradients along the paths are differentiated, for the weights.
        attack_curvature: The same for the attack.
        attack_batch_norm: BatchNorm during the attack; the authors' network has none.
    """

    weight: float = 0.1
    cacr: bool = True
    wacr: bool = True
    attack: PGD = PGD(eps=8 / 255, step_size=2 / 255, steps=7)
    steps: int = 20
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
        if not (self.cacr or self.wacr):
            raise ValueError("cacr or wacr of EnhancedRegularizers must be on")

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        change = LossChange(model, label, image, self.beta)
        score = loss_and_change(change, self.weight, self.attack_steps, self.attack_curvature)
        adversarial = self.perturb(model, score, image, state)

        def probability(x: Tensor) -> Tensor:
            return model(x).softmax(dim=1)

        terms = {"cross_entropy": cross_entropy_score(model, label)(adversarial)}
        if self.cacr:
            true, runner_up = self._from_black(
                lambda: class_and_runner_up_scores(probability, label), model, adversarial
            )
            terms["cacr"] = self.weight * contrast(true, runner_up)
        if self.wacr:
            true = single(class_score(probability, label))
            (base,) = self._from_black(lambda: true, model, image)
            moved = -change(adversarial, self.steps, self.curvature)
            terms["wacr"] = self.weight * weighted_change(base, moved)
        return {name: reduce(values, self.reduction) for name, values in terms.items()}

    def _from_black(
        self, scores_at: Callable[[], Scores], model: Classifier, image: Tensor
    ) -> tuple[Tensor, ...]:
        def gradients(point: Tensor) -> tuple[Tensor, ...]:
            scores = smoothly(scores_at(), model, self.beta)
            return input_gradients(scores, point, create_graph=True, curvature=self.curvature)

        return path_integrals(gradients, torch.zeros_like(image), image, steps=self.steps)


def contrast(true: Tensor, runner_up: Tensor) -> Tensor:
    """CACR from the maps (N,3,H,W) of both classes, (N,)."""
    return _from_uniform(runner_up) - _from_uniform(true)


def _from_uniform(maps: Tensor) -> Tensor:
    """KL(U || softmax(map summed over channels)) = logsumexp - mean - log(pixels), (N,)."""
    pixels = maps.sum(dim=1).flatten(1)
    # subtracting the mean first: the divergence is orders of magnitude below logsumexp
    centred = pixels - pixels.mean(dim=1, keepdim=True)
    return (centred.expm1().mean(dim=1)).log1p()


def weighted_change(base: Tensor, change: Tensor) -> Tensor:
    """WACR from the base attribution and its change (N,3,H,W), (N,) (by the code's comments paper
    eq. 7 and 8, combined in eq. 9)."""
    agree = base.detach().sign() == change.detach().sign()
    return torch.where(agree, base * change, change.abs()).flatten(1).sum(dim=1)
