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
    """Which attacks a classifier has to withstand.

    Attributes:
        radii: Of the ball, in the attack's norm and pixel units of [0,1], in rising order; 0 is the
            clean accuracy.
        attack: Its steps and norm; its step size grows with the radius, from `step_size` at `eps`.
        restarts: Random starts for each of two losses.
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
            raise ValueError("restarts of an AccuracyCurve need a random start of its attack")

    def at(self, radius: float) -> PGD:
        """The attack of this radius, above 0."""
        size = self.attack.step_size * radius / self.attack.eps
        return dataclasses.replace(self.attack, eps=radius, step_size=size)


def accuracy_curve(
    model: Classifier, loader: DataLoader, curve: AccuracyCurve, *, seed: int = 0
) -> dict[str, Any]:
    """Share of images whose true class withstands every attack, for each radius.

    Each restart attacks twice: by the cross-entropy and by the margin between the highest other
    logit and the true one, which still has a slope where the network is sure. An image that fell
    once at a radius has fallen at the larger ones too.

    Returns:
        `eps`, `accuracy` and `intervals` (95 %, over images), lists of one length, and `curve`, the
        settings.
    """
    torch.manual_seed(seed)
    rows: list[np.ndarray] = []
    description = f"accuracy under attack, {curve.attack.norm}"
    for batch in tqdm(loader, desc=description, unit="batch", leave=False):
        image, label = batch["image"].to(model.device), batch["label"].to(model.device)
        standing, columns = is_right(model, image, label), []
        for radius in curve.radii:
            if radius > 0:
                _attack(model, image, label, standing, curve.at(radius), curve.restarts)
            columns.append(standing.cpu().numpy().copy())
        rows.append(np.stack(columns, axis=1))
    table = np.concatenate(rows).astype(float)
    return {
        "eps": [float(radius) for radius in curve.radii],
        "accuracy": table.mean(axis=0).tolist(),
        "intervals": mean_interval(table, seed=seed).T.tolist(),
        "curve": dataclasses.asdict(curve),
    }


def _attack(
    model: Classifier, image: Tensor, label: Tensor, standing: Tensor, attack: PGD, restarts: int
) -> None:
    """Takes the images that fall out of `standing`, bool (N,)."""
    for _ in range(restarts):
        for make in (cross_entropy_score, margin_score):
            if standing.any():
                left = image[standing], label[standing]
                worst = attack(make(model, left[1]), left[0])
                standing[standing.clone()] = is_right(model, worst, left[1])


@torch.no_grad()
def is_right(model: Classifier, image: Tensor, label: Tensor) -> Tensor:
    """bool (N,): whether the class predicted for each image is `label` (N,)."""
    return model(image).argmax(dim=1) == label
