"""Accuracy against the radius of an attack."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from robust_training.attacks.pgd import PGD
from robust_training.attribution.scores import cross_entropy_score, margin_score
from robust_training.models.classifier import Classifier
from robust_training.progress import Progress
from wsol.evaluation.metrics import mean_interval
from wsol.robustness.autoattack import AutoAttack

# An attack on predictions: images (N,3,H,W), labels (N,) -> attacked images
_Attack = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AccuracyCurve:
    """A series of attacks on predictions, with growing radius.

    Attributes:
        radii: Radii of the ball in rising order, in the attack's norm and pixel units of [0,1]. A
            radius of 0 is the clean accuracy.
        attack: Steps and norm of the attack. Its step size grows in proportion to the radius, and
            is `attack.step_size` at the radius `attack.eps`.
        restarts: Number of random starts for each of two losses.
    """

    radii: list[float]
    attack: PGD
    restarts: int = 1

    def __post_init__(self) -> None:
        _require_rising(self.radii)
        if self.restarts < 1 or self.attack.steps < 1 or not self.attack.eps > 0:
            raise ValueError(
                "an AccuracyCurve needs restarts and attack.steps of at least 1 and an attack.eps "
                f"above 0, not {self.restarts}, {self.attack.steps}, {self.attack.eps}"
            )
        if self.restarts > 1 and not self.attack.random_start:
            raise ValueError("restarts above 1 of an AccuracyCurve need attack.random_start: true")

    def at(self, radius: float) -> PGD:
        """The attack with a radius above 0."""
        size = self.attack.step_size * radius / self.attack.eps
        return dataclasses.replace(self.attack, eps=radius, step_size=size)

    @property
    def protocol(self) -> str:
        """The attack in words."""
        return (
            f"PGD {self.attack.norm}, {self.attack.steps} steps, cross-entropy and margin, "
            f"{self.restarts} restart(s) each"
        )

    def attacks(self, model: Classifier, radius: float, seed: int) -> Iterator[_Attack]:
        """The attacks of a radius above 0, one after the other."""
        pgd = self.at(radius)
        for _ in range(self.restarts):
            for make_score in (cross_entropy_score, margin_score):
                yield lambda image, label, make=make_score: pgd(make(model, label), image)


@dataclass(frozen=True)
class AutoAttackCurve:
    """A series of AutoAttack's attacks on predictions, with growing radius.

    Attributes:
        radii: See `AccuracyCurve`.
        attack: The attacks and their norm.
    """

    radii: list[float]
    attack: AutoAttack = AutoAttack()

    def __post_init__(self) -> None:
        _require_rising(self.radii)

    @property
    def protocol(self) -> str:
        """The attack in words."""
        return f"AutoAttack {self.attack.norm}, {', '.join(self.attack.parts)}"

    def attacks(self, model: Classifier, radius: float, seed: int) -> Iterator[_Attack]:
        """The attack of a radius above 0."""
        yield partial(self.attack, model, radius, seed)


def _require_rising(radii: list[float]) -> None:
    if list(radii) != sorted(radii) or not len(radii) or radii[0] < 0:
        raise ValueError(
            f"radii of an AccuracyCurve must be at least 0 and in rising order, not {list(radii)}"
        )


def accuracy_curve(
    model: Classifier, loader: DataLoader, curve: AccuracyCurve | AutoAttackCurve, *, seed: int = 0
) -> dict[str, Any]:
    """Fraction of images that are classified correctly under every attack, for each radius: lists
    `eps`, `accuracy` and `intervals` (95 %, over images); the settings, `curve`; and the attack in
    words, `protocol`.

    Each restart of an `AccuracyCurve` runs two attacks. One increases the cross-entropy. The other
    increases the highest other logit minus the true logit, because this gradient does not vanish if
    the network is confident. If an image is misclassified at one radius, it also counts as
    misclassified at all larger ones."""
    torch.manual_seed(seed)
    batches: list[np.ndarray] = []
    description = f"accuracy under attack, {curve.attack.norm}"
    for batch in Progress(loader, desc=description, unit="batch", leave=False):
        image, label = batch["image"].to(model.device), batch["label"].to(model.device)
        withstood, columns = is_correct(model, image, label), []
        for radius in curve.radii:
            if radius > 0:
                for attack in curve.attacks(model, radius, seed):
                    _attack(model, image, label, withstood, attack)
            columns.append(withstood.cpu().numpy().copy())
        batches.append(np.stack(columns, axis=1))
    table = np.concatenate(batches).astype(float)
    return {
        "eps": [float(radius) for radius in curve.radii],
        "accuracy": table.mean(axis=0).tolist(),
        "intervals": mean_interval(table, seed=seed).T.tolist(),
        "curve": dataclasses.asdict(curve),
        "protocol": curve.protocol,
    }


def _attack(
    model: Classifier, image: Tensor, label: Tensor, withstood: Tensor, attack: _Attack
) -> None:
    """Attacks the images marked in `withstood`, bool (N,), and clears those that fail."""
    if withstood.any():
        remaining, labels = image[withstood], label[withstood]
        worst = attack(remaining, labels)
        withstood[withstood.clone()] = is_correct(model, worst, labels)


@torch.no_grad()
def is_correct(model: Classifier, image: Tensor, label: Tensor) -> Tensor:
    """Whether the predicted class of each image is its `label` (N,): bool (N,)."""
    return model(image).argmax(dim=1) == label
