"""Accuracy against the radius of an attack."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from robust_training.attack import PGD
from robust_training.attribution import cross_entropy_score, margin_score
from robust_training.model import Classifier
from wsol.metrics import bootstrap


def accuracy_curve(
    model: Classifier,
    loader: DataLoader,
    radii: Sequence[float],
    attack: PGD,
    *,
    restarts: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Share of images whose true class withstands every attack, for each radius.

    Each restart attacks twice: by the cross-entropy and by the margin between the highest other
    logit and the true one, which still has a slope where the network is sure. An image that fell
    once at a radius has fallen at the larger ones too.

    Args:
        radii: Of the ball, in the attack's norm, in rising order; 0 is the clean accuracy.
        attack: Its steps and norm; its step size grows with the radius, from `step_size` at `eps`.
        restarts: Random starts for each loss.

    Returns:
        `eps`, `accuracy` and `intervals` (95 %, over images), lists of one length, and the attack.
    """
    if list(radii) != sorted(radii) or not len(radii) or radii[0] < 0:
        raise ValueError(f"radii must be at least 0 and in rising order, not {list(radii)}")
    if restarts < 1 or attack.steps < 1 or not attack.eps > 0:
        raise ValueError("an accuracy curve needs restarts, steps and an eps of at least 1 step")
    device = next(model.parameters()).device
    torch.manual_seed(seed)
    rows: list[np.ndarray] = []
    for batch in tqdm(loader, desc="accuracy under attack", unit="batch", leave=False):
        image, label = batch["image"].to(device), batch["label"].to(device)
        standing, columns = is_right(model, image, label), []
        for radius in radii:
            scaled = dataclasses.replace(
                attack, eps=radius, step_size=attack.step_size * max(radius, 1e-12) / attack.eps
            )
            for _ in range(restarts if radius > 0 else 0):
                for make in (cross_entropy_score, margin_score):
                    if standing.any():
                        left = image[standing], label[standing]
                        worst = scaled(make(model, left[1]), left[0])
                        standing[standing.clone()] = is_right(model, worst, left[1])
            columns.append(standing.cpu().numpy().copy())
        rows.append(np.stack(columns, axis=1))
    table = np.concatenate(rows).astype(float)
    ends = bootstrap(lambda drawn: drawn @ table / len(table), len(table), seed=seed)
    return {
        "eps": [float(radius) for radius in radii],
        "accuracy": table.mean(axis=0).tolist(),
        "intervals": ends.T.tolist(),
        "attack": dataclasses.asdict(attack) | {"restarts": restarts},
    }


@torch.no_grad()
def is_right(model: Classifier, image: Tensor, label: Tensor) -> Tensor:
    """bool (N,): whether the class predicted for each image is `label` (N,)."""
    return model(image).argmax(dim=1) == label
