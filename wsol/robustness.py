"""How far an attack moves a classifier's maps, boxes and predictions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from robust_training.attribution import cross_entropy_score
from robust_training.map_attack import MapAttack, Noise
from robust_training.model import Classifier
from wsol.adversarial_accuracy import is_right
from wsol.boxes import iou, largest_boxes
from wsol.heatmap import Gradient
from wsol.map_similarity import MEASURES, similarities
from wsol.metrics import bootstrap
from wsol.rows import HIT

_ATTACK = MapAttack()
Columns = Mapping[str, np.ndarray]


def robustness(
    model: Classifier,
    loader: DataLoader,
    *,
    threshold: float,
    attack: MapAttack = _ATTACK,
    seed: int = 0,
) -> dict[str, Any]:
    """{"robustness": scores} of a split; shares, but for `centre_shift` in pixels.

    `measures`: for each of `map_similarity.MEASURES`, between the clean and the attacked map of
    correctly classified images, `mean` over those with an iterate that kept the class (as ART
    reports), `flipped_as_same` over all of them with the others unchanged (as IG-NORM does), and
    `under_noise`, the mean for random steps of the same length, the floor of any attack. `boxes`:
    GT-known Loc of gradient maps on the correctly classified images and on their attacked copies.
    `accuracy`: under PGD on the cross-entropy, of the same radius and steps. Intervals are 95 %,
    over images; numbers are None where there is no image.

    Args:
        loader: Over a CUB200.
        threshold: Of the boxes; not chosen on this split.
        seed: Of the attacks' starts and the bootstrap.
    """
    device = next(model.parameters()).device
    torch.manual_seed(seed)
    found: list[Columns] = []
    correct, survived = [], []
    for batch in tqdm(loader, desc="attacking", unit="batch", leave=False):
        image, label = batch["image"].to(device), batch["label"].to(device)
        right = is_right(model, image, label)
        worst = attack.attack(cross_entropy_score(model, label), image)
        correct.append(right.cpu().numpy())
        survived.append(is_right(model, worst, label).cpu().numpy())
        if right.any():
            chosen = image[right], label[right], batch["box"][right.cpu()]
            found.append(_attacked(model, *chosen, attack, threshold))
    names = [name for columns in found[:1] for name in columns]
    columns = {name: np.concatenate([each[name] for each in found]) for name in names}
    survived = np.concatenate(survived).astype(float)
    settings = dataclasses.asdict(attack) | {
        "goal": type(attack.goal).__name__,
        "attribution": type(attack.attribution).__name__,
    }
    return {
        "robustness": {
            "measures": {name: _measure(columns, name, seed) for name in MEASURES},
            "boxes": {
                "clean": _mean(columns.get("clean_hit"), seed),
                "attacked": _mean(columns.get("attacked_hit"), seed),
            },
            "accuracy": _mean(survived, seed),
            "images": len(survived),
            "correct": int(np.concatenate(correct).sum()),
            "flipped": int((~columns["kept"]).sum()) if columns else 0,
            "attack": settings | {"threshold": threshold},
        }
    }


def _attacked(
    model: Classifier,
    image: Tensor,
    label: Tensor,
    box: Tensor,
    attack: MapAttack,
    threshold: float,
) -> Columns:
    """A row per image: kept, hits, each measure after the attack, and (" noise") after noise."""
    result = attack(model, image, label)
    random = dataclasses.replace(attack, goal=Noise(), restarts=1)(model, image, label)
    clean = attack.maps(model, image, label)
    k = attack.pixels(clean)
    columns: dict[str, np.ndarray] = {"kept": result.kept.cpu().numpy()}
    for suffix, copies in (("", result.image), (" noise", random.image)):
        pairs = zip(_numpy(clean), _numpy(attack.maps(model, copies, label)), strict=True)
        rows = [similarities(first, second, k) for first, second in pairs]
        columns |= {name + suffix: np.array([row[name] for row in rows]) for name in MEASURES}
    for name, copies in (("clean_hit", image), ("attacked_hit", result.image)):
        heatmaps = Gradient()(model, copies, label)
        boxes = np.concatenate([largest_boxes(heatmap, [threshold]) for heatmap in heatmaps])
        columns[name] = (iou(boxes, box.numpy()) >= HIT).astype(float)
    return columns


def _numpy(maps: Tensor) -> np.ndarray:
    return maps.double().cpu().numpy()


def _measure(columns: Columns, name: str, seed: int) -> dict[str, Any]:
    if not columns:
        return {"mean": None, "interval": None, "flipped_as_same": None, "under_noise": None}
    return _mean(columns[name][columns["kept"]], seed) | {
        "flipped_as_same": float(columns[name].mean()),
        "under_noise": float(columns[f"{name} noise"].mean()),
    }


def _mean(values: np.ndarray | None, seed: int) -> dict[str, Any]:
    if values is None or not len(values):
        return {"mean": None, "interval": None}
    ends = bootstrap(lambda drawn: drawn @ values / len(values), len(values), seed=seed)
    return {"mean": float(values.mean()), "interval": ends.tolist()}
