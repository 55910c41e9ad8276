"""ART: training that aligns input gradients with the image, on attacked images."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robust_training.attacks.base import Attack
from robust_training.attacks.pgd import PGD
from robust_training.attribution.anchors import Anchor, Image
from robust_training.attribution.explanation import Attribution, InputGradient, check_attribution
from robust_training.attribution.scores import class_and_runner_up_scores, class_score, single
from robust_training.attribution.similarity import check_top_k, cosine, pixel_count
from robust_training.autograd.batch_norm import BatchNormMode, attack_mode, batch_norm
from robust_training.autograd.curvature import Curvature, Score, Scores
from robust_training.autograd.smooth_activation import smoothly
from robust_training.models.classifier import Classifier
from robust_training.objectives.base import (
    AttackingObjective,
    AttackState,
    check_at_least,
    check_choice,
    check_positive,
)


@dataclass(frozen=True)
class ART(AttackingObjective):
    """Attributional Robustness Training (Singh et al., ECCV 2020, arXiv 1911.13073).

    Terms: `cross_entropy` on the attacked image with the network itself, and `attribution`, the
    soft-margin triplet loss with the smooth network,

        weight * mean log(1 + exp(d(g_y, image) - d(g_r, image))),   d = 1 - cosine,

    over clean and attacked images. g_y and g_r are the attributions (input gradients as published)
    of the true and of the runner-up logit. A clean image and its attacked copy form a pair. Each
    image is compared with both maps of its pair, and the worse one counts. If the loss is ln 2 =
    0.693 (times weight), both attributions are equally far from the image. An untrained network has
    a slightly higher loss, because the worse map counts.
    The defaults are from the published CUB code (train_Art.py, art_attack.py, loss_art.py). Only
    beta is from the name of the published run: the code itself passes beta 1 by mistake.

    Attributes:
        weight: Weight of the attribution term.
        attack: Increases the attribution loss on the support only.
        top_k: Size of the support: the largest pixels of the true logit's map at the attack's
            start. A number of pixels (int) or a fraction (float; 15,000 of 224 x 224 as published).
        beta: Sharpness of the softplus that replaces ReLU.
        form: "magnitude" compares channel means of absolute values (CUB), "signed" every channel
            with its sign (CIFAR; the published attack there has eps 8/255, 3 steps of 5/255 and
            top_k 1000 of 3072).
        attribution: The attribution that is aligned with the image. Kim, Seo and Jeon (arXiv
            1903.11626) propose to combine adversarial training with global attributions, products
            of pixel and gradient. The published gradients are with respect to normalised pixels;
            products do not depend on this unit.
        anchor: The map that the attribution is aligned with; the normalised image as published.
        triplet: Whether the runner-up's attribution counts, as published. Otherwise d(g_r, image)
            is 1, as for a map that has nothing in common with the image. Among many similar classes
            both maps are nearly the same, and the triplet loss cancels what images have in common
            (docs/experiments/trade_off.md).
        pair: Whether the term compares clean and attacked images, as published. Otherwise it
            compares attacked images alone, which halves the cost of the term.
        curvature: The way in which the loss is differentiated through the maps, for the weights.
        attack_curvature: The way in which it is differentiated in the attack.
        attack_batch_norm: Mode of BatchNorm during the attack.
        term_batch_norm: Mode of BatchNorm in the smooth network's pass for the attribution term.
            With a small beta, softplus differs from ReLU, and "update" gives the network running
            statistics that are not those of its own activations. Then use "running" for both modes.
        cross_entropy_batch_norm: Mode of BatchNorm in the cross-entropy's pass. If the term uses
            running statistics and the cross-entropy those of batches, a large term can destroy
            the accuracy in evaluation, which no pass of the training measures. "running" in all
            three modes keeps BatchNorm's statistics as they were before the training.
    """

    weight: float = 0.5
    attack: Attack = PGD(eps=2 / 255, step_size=1.5 / 255, steps=3)
    top_k: int | float = 0.3
    beta: float = 50.0
    form: Literal["magnitude", "signed"] = "magnitude"
    attribution: Attribution = InputGradient()
    anchor: Anchor = Image()
    triplet: bool = True
    pair: bool = True
    curvature: Curvature = "exact"
    attack_curvature: Curvature = "exact"
    attack_batch_norm: BatchNormMode = "update"
    term_batch_norm: BatchNormMode = "update"
    cross_entropy_batch_norm: BatchNormMode = "update"

    def __post_init__(self) -> None:
        check_at_least(0, self, "weight")
        check_positive(self, "beta")
        check_attribution("ART", self.attribution)
        check_choice(self, "form", ("magnitude", "signed"))
        check_top_k("ART", self.top_k)

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        attacked = self.attack_images(model, image, label, state)
        images = torch.cat([image, attacked]) if self.pair else attacked
        with batch_norm(model, self.term_batch_norm):
            maps = self.attribution(
                self._scores(model, label.repeat(2) if self.pair else label),
                images,
                create_graph=True,
                curvature=self.curvature,
            )
        true, runner_up = self._compared(
            [self.attribution.in_units(each, model.std) for each in maps]
        )
        anchor = self._features(self.anchor(model.normalize(images)))
        with batch_norm(model, self.cross_entropy_batch_norm):
            logits = model(attacked)
        return {
            "cross_entropy": F.cross_entropy(logits, label),
            "attribution": self.weight * attribution_loss(anchor, true, runner_up, len(image)),
        }

    def untrained_terms(self) -> dict[str, float]:
        # without the triplet, absolute values have a positive cosine before any training
        known = self.triplet or self.form == "signed"
        return {"attribution": self.weight * log(2)} if known else {}

    def attack_images(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState | None = None
    ) -> Tensor:
        """Return the attacked images (N,3,H,W), as in art_attack.py."""
        state = state or AttackState()
        with attack_mode(model, self.attack_batch_norm):
            if state.perturbed is None:
                state.perturbed = self.attack.start(image)
                if self.attack.steps > 0:
                    score = single(class_score(model, label))
                    (true,) = self.attribution(score, state.perturbed)
                    state.support = self._support(true)
            if self.attack.steps > 0:
                score = self._attack_score(model, label, state.support)
                state.perturbed = self.attack(score, image, state.perturbed)
        return state.perturbed

    def _attack_score(self, model: Classifier, label: Tensor, support: Tensor) -> Score:
        def score(image: Tensor) -> Tensor:
            maps = self.attribution(
                self._scores(model, label),
                image,
                create_graph=True,
                curvature=self.attack_curvature,
            )
            true, runner_up = (each.gather(1, support) for each in self._compared(maps))
            anchor = self._features(self.anchor(model.normalize(image))).gather(1, support)
            positive, negative = cosine(anchor, true), cosine(anchor, runner_up)
            return F.softplus(negative - positive)

        return score

    def _scores(self, model: Classifier, label: Tensor) -> Scores:
        true = single(class_score(model, label))
        scores = class_and_runner_up_scores(model, label) if self.triplet else true
        return smoothly(scores, model, self.beta)

    def _compared(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features of the true class's maps and of the runner-up's (0 without the triplet)."""
        true, *others = (self._features(each) for each in maps)
        return true, others[0] if others else torch.zeros_like(true)

    def _features(self, maps: Tensor) -> Tensor:
        """(N,3,H,W) -> (N,D), the values that are compared."""
        if self.form == "magnitude":
            maps = maps.abs().mean(dim=1)
        return maps.flatten(1)

    def _support(self, attribution: Tensor) -> Tensor:
        magnitude = self._features(attribution).abs()
        size = magnitude.shape[1]
        return magnitude.topk(min(pixel_count(self.top_k, size), size)).indices


def attribution_loss(anchor: Tensor, true: Tensor, runner_up: Tensor, batch: int) -> Tensor:
    """Mean soft-margin triplet loss with mining inside each pair (loss_art.py).

    Args:
        anchor, true, runner_up: (2B, D), clean rows, then attacked rows in the same order; or
            (B, D), attacked rows alone.
        batch: B.
    """
    rows = anchor.unflatten(0, (-1, 1, batch))
    positive = 1 - cosine(rows, true.unflatten(0, (1, -1, batch)))  # (anchor, map, B)
    negative = 1 - cosine(rows, runner_up.unflatten(0, (1, -1, batch)))
    return F.softplus(positive.amax(dim=1) - negative.amin(dim=1)).mean()
