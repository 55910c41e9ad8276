"""CACR and WACR: two regularizers of class attributions.

CACR contrasts the attributions of two classes. WACR penalizes weighted changes of an attribution.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_training.attribution.gradients import input_gradients, path_integrals
from robust_training.attribution.scores import (
    class_and_runner_up_scores,
    class_score,
    cross_entropy_score,
    single,
)
from robust_training.autograd.curvature import Scores
from robust_training.autograd.smooth_activation import smoothly
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import AttackState, reduce
from robust_training.objectives.ig_norm import IGSumNorm


@dataclass(frozen=True)
class EnhancedRegularizers(IGSumNorm):
    """Sarkar et al., AAAI 2021 (arXiv 2012.14395), as in the authors' code for Flower (model.py,
    train_our.py); no other code was published. The attack is the attack of IG-SUM-NORM.

    Terms: `cross_entropy` on the attacked images, and, each times `weight`,

        cacr = KL(U || softmax(n)) - KL(U || softmax(t))
        wacr = sum over same signs of b D + sum over other signs of |D|

    * U is uniform over the pixels.
    * t and n are integrated gradients from black to the attacked image, summed over channels: of
      the true class's probability, and of the runner-up's at each point of the path.
    * b are the integrated gradients of the true class's probability from black to the clean image.
    * D is minus the integrated gradients of the cross-entropy from the clean to the attacked image.

    Signs and runner-up are constants in the gradient. `cacr` can be negative and may be tiny: the
    attributions of a probability sum to at most 1 over all pixels, and the divergence is about half
    their variance. On networks fine-tuned for ten classes it was 1e-6 to 1e-5, and the
    cross-entropy was 1 to 2. Its gradient was 3e-5 to 3e-4 of the cross-entropy's gradient.
    Training warns of such terms.
    The defaults are from IG-SUM-NORM-config.json, the file that the code opens (set1.json has
    weight 0.08 and 5 steps). It is not known which of the two files gave the paper's numbers.

    For the other fields, see `IGNorm`. `weight` is the weight of both regularizers.

    Attributes:
        steps: Points of every path, for the weights; the time of a step is proportional to it.
        cacr, wacr: Whether each regularizer is used; at least one must be true.
    """

    steps: int = 20
    cacr: bool = True
    wacr: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.cacr or self.wacr):
            raise ValueError("cacr or wacr of EnhancedRegularizers must be true")

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        attacked = self.attack_images(model, image, label, state)

        def probability(x: Tensor) -> Tensor:
            return model(x).softmax(dim=1)

        terms = {"cross_entropy": cross_entropy_score(model, label)(attacked)}
        if self.cacr:
            true, runner_up = self._from_black(
                lambda: class_and_runner_up_scores(probability, label), model, attacked
            )
            terms["cacr"] = self.weight * contrast(true, runner_up)
        if self.wacr:
            true = single(class_score(probability, label))
            (base,) = self._from_black(lambda: true, model, image)
            change = self.loss_change(model, image, label, self.steps, self.curvature)
            terms["wacr"] = self.weight * weighted_change(base, -change(attacked))
        return {name: reduce(values, self.reduction) for name, values in terms.items()}

    def _from_black(
        self, scores_at: Callable[[], Scores], model: Classifier, image: Tensor
    ) -> tuple[Tensor, ...]:
        def gradients(point: Tensor) -> tuple[Tensor, ...]:
            scores = smoothly(scores_at(), model, self.beta)
            return input_gradients(scores, point, create_graph=True, curvature=self.curvature)

        return path_integrals(gradients, torch.zeros_like(image), image, steps=self.steps)


def contrast(true: Tensor, runner_up: Tensor) -> Tensor:
    """Return CACR (N,) of the maps (N,3,H,W) of both classes."""
    return _from_uniform(runner_up) - _from_uniform(true)


def _from_uniform(maps: Tensor) -> Tensor:
    """KL(U || softmax(map summed over channels)) = logsumexp - mean - log(pixels), (N,)."""
    pixels = maps.sum(dim=1).flatten(1)
    # subtracting the mean first: the divergence is orders of magnitude below logsumexp
    centred = pixels - pixels.mean(dim=1, keepdim=True)
    return (centred.expm1().mean(dim=1)).log1p()


def weighted_change(base: Tensor, change: Tensor) -> Tensor:
    """Return WACR (N,) from the base attribution and its change, both (N,3,H,W).

    According to comments in the code, these are the paper's equations 7 and 8, combined in 9.
    """
    agree = base.detach().sign() == change.detach().sign()
    return torch.where(agree, base * change, change.abs()).flatten(1).sum(dim=1)
