"""Scores of a classifier: each maps images (N,3,H,W) in [0,1] to one number per image, (N,).

Attributions differentiate a score, attacks increase a score, and objectives add scores.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robust_training.autograd.curvature import Score, Scores

Outputs = Callable[[Tensor], Tensor]  # a model: images (N,3,H,W) -> one number per class (N,C)


def class_score(model: Outputs, label: Tensor) -> Score:
    """Return the score that is the logit of `label` (N,)."""
    return lambda image: _pick(model(image), label)


def cross_entropy_score(model: Outputs, label: Tensor) -> Score:
    """Return the score that is the cross-entropy of `label` (N,)."""
    return lambda image: F.cross_entropy(model(image), label, reduction="none")


def margin_score(model: Outputs, label: Tensor) -> Score:
    """Return the highest other logit minus the logit of `label` (N,): above 0 if the prediction is
    wrong.

    Unlike the cross-entropy, it has a gradient that does not vanish for a confident network.
    """

    def score(image: Tensor) -> Tensor:
        logits = model(image)
        return _pick(logits, _runner_up(logits, label)) - _pick(logits, label)

    return score


def single(score: Score) -> Scores:
    """Return one score in the form of several, for functions that take several."""
    return lambda image: (score(image),)


def class_and_runner_up_scores(model: Outputs, label: Tensor) -> Scores:
    """Return the logits of `label` (N,) and of the highest other class, from one forward pass.

    The runner-up is selected at the first images and stays the same afterwards, so that displaced
    images use the same pair of classes.
    """
    runner_up: Tensor | None = None

    def scores(image: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal runner_up
        logits = model(image)
        if runner_up is None:
            runner_up = _runner_up(logits.detach(), label)
        return _pick(logits, label), _pick(logits, runner_up)

    return scores


def _pick(logits: Tensor, label: Tensor) -> Tensor:
    return logits.gather(1, label[:, None]).squeeze(1)


def _runner_up(logits: Tensor, label: Tensor) -> Tensor:
    if logits.shape[1] < 2:
        raise ValueError("a runner-up class needs at least 2 classes, and the model has 1")
    return logits.scatter(1, label[:, None], -torch.inf).argmax(dim=1)
