"""How far an attack moves a classifier's maps and predictions."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from robust_training.attribution import cross_entropy_score
from robust_training.feature_attack import TopKAttack
from robust_training.model import Classifier
from robust_training.similarity import top_k_intersection
from wsol.metrics import bootstrap

_ATTACK = TopKAttack()


def robustness(
    model: Classifier, loader: DataLoader, attack: TopKAttack = _ATTACK, *, seed: int = 0
) -> dict[str, Any]:
    """{"robustness": scores} of the correctly classified images of `loader`.

    `top_k_intersection` of clean and attacked maps, over images with an iterate that kept the
    class (as ART reports), and `with_flipped_as_1` over all (as IG-NORM does); `under_noise`, the
    same under uniform noise of the same radius, which is what an attack must beat; `accuracy` on
    all images under PGD of the same radius and steps. `intervals`: 95 %, over images. None where
    there is no image.

    Args:
        seed: Of the attack's start, the noise and the bootstrap.
    """
    torch.manual_seed(seed)
    rows = [_measure(model, image, label, attack) for image, label in _batches(model, loader)]
    correct, survived, shared, kept, noise = (
        torch.cat(column).double().cpu().numpy() for column in zip(*rows, strict=True)
    )
    chosen = kept.astype(bool)
    shares = {
        "top_k_intersection": shared[chosen],
        "with_flipped_as_1": shared,
        "under_noise": noise,
        "accuracy": survived,
    }
    scores: dict[str, Any] = {
        name: float(values.mean()) if len(values) else None for name, values in shares.items()
    }
    scores["intervals"] = {
        name: bootstrap(lambda drawn, v=values: drawn @ v / len(v), len(values), seed=seed).tolist()
        for name, values in shares.items()
        if len(values)
    }
    protocol = dataclasses.asdict(attack) | {"attribution": type(attack.attribution).__name__}
    counts = {"images": len(correct), "correct": int(correct.sum())}
    counts |= {"flipped": int((~chosen).sum())}
    return {"robustness": scores | counts | {"attack": protocol}}


def _batches(model: Classifier, loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    device = next(model.parameters()).device
    for batch in tqdm(loader, desc="attacking", unit="batch", leave=False):
        yield batch["image"].to(device), batch["label"].to(device)


def _measure(
    model: Classifier, image: Tensor, label: Tensor, attack: TopKAttack
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(correct, correct under attack) of all images; (intersection, kept, under noise) of the
    correct ones."""
    with torch.no_grad():
        correct = model(image).argmax(dim=1) == label
    worst = attack.attack(cross_entropy_score(model, label), image)
    with torch.no_grad():
        survived = model(worst).argmax(dim=1) == label
    image, label = image[correct], label[correct]
    if not len(image):
        nothing = torch.zeros(0, device=image.device)
        return correct, survived, nothing, nothing, nothing
    found = attack(model, image, label)
    noisy = dataclasses.replace(attack.attack, random_start=True).start(image)
    maps = (attack.maps(model, each, label) for each in (image, noisy))
    pixels = image.shape[-2] * image.shape[-1]
    noise = top_k_intersection(*maps, max(1, round(attack.top_k * pixels)))
    return correct, survived, found.intersection, found.kept, noise
