"""Checks that find runs that cannot learn, and report the reason in sentences."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robust_training.attacks.base import Attack
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score
from robust_training.autograd.curvature import Score
from robust_training.models.classifier import Classifier
from robust_training.objectives import Objective, Sum
from robust_training.training.log import Row
from robust_training.training.step import Batch, Step

_IMAGES = 8


def is_due(epoch: int, epochs: int) -> bool:
    """Whether to check after `epoch` (from 0). The check runs once in a run, after some epochs,
    because a new head starts at zero and some weights of terms have a warm-up."""
    return epoch + 1 == min(epochs, max(3, epochs // 10))


def check_terms(
    terms: Mapping[str, float], log: Sequence[Row], objective: Objective, epoch: int
) -> list[str]:
    """Find terms that are too small to train, and a loss that does not fall.

    Args:
        terms: Mean terms of the epoch.
        log: Rows of the epochs before it.
        epoch: Number of epochs before it.
    """
    total = sum(map(abs, terms.values()))
    found = [
        f"{name} is {abs(value) / total:.0e} of the loss and has almost no effect; its "
        "weight may be too small"
        for name, value in terms.items()
        if 0 < abs(value) < 1e-4 * total
    ]
    has_warmup = objective.at(0) != objective.at(epoch)
    if len(log) >= 2 and terms.keys() <= log[0].keys() and not has_warmup:
        first, now = (sum(row[name] for name in terms) for row in (log[0], terms))
        if not now < first:
            found.append(
                f"the loss has not fallen since the first epoch ({first:.4g}, now {now:.4g}); the "
                "learning rate may be too small or too large"
            )
    return found


def check_network(model: Classifier, objective: Objective, batch: Batch) -> list[str]:
    """Check logits, gradients and attacks on a few images of `batch`.

    Returns one sentence for each problem. Afterwards the model is in evaluation mode.
    """
    batch = Batch(batch.image[:_IMAGES], batch.label[:_IMAGES])
    image, label = batch.image.to(next(model.parameters()).dtype), batch.label
    model.eval()
    found = []
    with torch.no_grad():
        logits = model(image)
    spread = (logits - logits[:1]).abs().max()
    if len(image) > 1 and spread <= 1e-6 * logits.abs().max():
        found.append("all images get the same logits: the output does not depend on the image")
    gradient = input_gradient(class_score(model, label), image)
    empty = len(image) - int(gradient.flatten(1).any(dim=1).sum())
    if empty:
        found.append(
            f"the gradient of the class score is zero on {empty} of {len(image)} training images: "
            "they have no map"
        )
    recorders: list[_RecordedAttack] = []
    step = Step(model, _recorded(objective, recorders))
    if recorders:
        step(batch)
    for recorder in recorders:
        found.extend(recorder.complaints())
    return found


class _RecordedAttack:
    """An attack that records its largest change of a pixel, and its score before and after."""

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self.seen: list[tuple[Tensor, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.attack, name)

    def __call__(self, score: Score, image: Tensor, start: Tensor | None = None) -> Tensor:
        start = self.attack.start(image) if start is None else start
        perturbed = self.attack(score, image, start)
        moved = min((perturbed - before).abs().max() for before in (image, start))
        scores = (score(each).detach().mean() for each in (start, perturbed))
        self.seen.append((moved, *scores))
        return perturbed

    def complaints(self) -> Iterator[str]:
        for moved, before, after in self.seen:
            if moved == 0:
                yield "the attack's steps do not change the images: its eps or its gradient is zero"
            elif not after > before:
                yield (
                    f"the attack does not increase its score ({before:.4g} before its steps, "
                    f"{after:.4g} after): step_size may be too large, or the gradient zero"
                )


def _recorded(objective: Objective, recorders: list[_RecordedAttack]) -> Objective:
    """Replace the objective's attacks by recording attacks, and add these to `recorders`."""
    if isinstance(objective, Sum):
        parts = tuple(
            dataclasses.replace(part, objective=_recorded(part.objective, recorders))
            for part in objective.parts
        )
        return dataclasses.replace(objective, parts=parts)
    attack = getattr(objective, "attack", None)
    if not isinstance(attack, Attack):
        return objective
    recorder = _RecordedAttack(attack)
    recorders.append(recorder)
    return dataclasses.replace(objective, attack=recorder)
