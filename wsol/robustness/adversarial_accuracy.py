"""Accuracy against the radius of an attack."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from robust_training.attacks.pgd import PGD
from robust_training.attribution.scores import cross_entropy_score, margin_score
from robust_training.models.classifier import Classifier
from wsol.evaluation.metrics import mean_interval


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
        if list(self.radii) != sorted(self.radii) or not len(self.radii) or self.radii[0] < 0:
            raise ValueError(
                "radii of an AccuracyCurve must be at least 0 and in rising order, not "
                f"{list(self.radii)}"
            )
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


def accuracy_curve(
    model: Classifier, loader: DataLoader, curve: AccuracyCurve, *, seed: int = 0
) -> dict[str, Any]:
    """Fraction of images that are classified correctly under every attack, for each radius.

    Each restart runs two attacks. One increases the cross-entropy. The other increases the highest
    other logit minus the true logit, because this gradient does not vanish if the network is
    confident. If an image is misclassified at one radius, it also counts as misclassified at all
    larger ones.

    Returns:
        `eps`, `accuracy` and `intervals` (95 %, over images), lists with one entry for each radius,
        and `curve`, the settings.
    """
    torch.manual_seed(seed)
    batches: list[np.ndarray] = []
    description = f"accuracy under attack, {curve.attack.norm}"
    for batch in tqdm(loader, desc=description, unit="batch", leave=False):
        image, label = batch["image"].to(model.device), batch["label"].to(model.device)
        withstood, columns = is_correct(model, image, label), []
        for radius in curve.radii:
            if radius > 0:
                _attack(model, image, label, withstood, curve.at(radius), curve.restarts)
            columns.append(withstood.cpu().numpy().copy())
        batches.append(np.stack(columns, axis=1))
    table = np.concatenate(batches).astype(float)
    return {
        "eps": [float(radius) for radius in curve.radii],
        "accuracy": table.mean(axis=0).tolist(),
        "intervals": mean_interval(table, seed=seed).T.tolist(),
        "curve": dataclasses.asdict(curve),
    }


def _attack(
    model: Classifier, image: Tensor, label: Tensor, withstood: Tensor, attack: PGD, restarts: int
) -> None:
    """Attacks the images with True in `withstood`, bool (N,). Misclassified images become False."""
    for _ in range(restarts):
        for make_score in (cross_entropy_score, margin_score):
            if withstood.any():
                remaining, labels = image[withstood], label[withstood]
                worst = attack(make_score(model, labels), remaining)
                withstood[withstood.clone()] = is_correct(model, worst, labels)


@torch.no_grad()
def is_correct(model: Classifier, image: Tensor, label: Tensor) -> Tensor:
    """Whether the predicted class of each image is its `label` (N,): bool (N,)."""
    return model(image).argmax(dim=1) == label
