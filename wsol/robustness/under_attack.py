"""How far an attack moves a classifier's maps, boxes and predictions."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from robust_training.attacks.map_attack import MapAttack, Noise
from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import IntegratedGradients
from robust_training.attribution.similarity import (
    MEASURES,
    SMALLEST,
    is_constant,
    similarities,
)
from robust_training.models.classifier import Classifier
from wsol.boxes.geometry import iou
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.evaluation.metrics import mean_interval
from wsol.evaluation.score_table import HIT
from wsol.heatmaps.heatmap import Gradient
from wsol.robustness.adversarial_accuracy import AccuracyCurve, accuracy_curve, is_right

Columns = Mapping[str, np.ndarray]


def _map_attacks() -> list[MapAttack]:
    return [MapAttack(), MapAttack(attribution=IntegratedGradients())]


def _accuracy_curves() -> list[AccuracyCurve]:
    return [
        AccuracyCurve(
            [0, 0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255],
            PGD(eps=2 / 255, step_size=0.5 / 255, steps=10),
        ),
        AccuracyCurve([0, 0.125, 0.25, 0.5, 1, 2], PGD(1.0, 0.25, steps=10, norm="l2")),
    ]


@dataclass(frozen=True)
class RobustnessConfig:
    """What is attacked, and how.

    Attributes:
        maps: Attacks on maps, one after the other.
        accuracy: Attacks on predictions.
        images: How many images of the split, spread evenly over it; None takes all.
    """

    maps: list[MapAttack] = field(default_factory=_map_attacks)
    accuracy: list[AccuracyCurve] = field(default_factory=_accuracy_curves)
    images: int | None = 100

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise ValueError(f"images of a RobustnessConfig must be at least 1, not {self.images}")

    def require_size(self, side: int) -> None:
        """ValueError where maps of `side` pixels a side are too small for what is measured."""
        if side < SMALLEST:
            raise ValueError(f"maps need {SMALLEST} pixels a side to be compared, not {side}")
        for attack in self.maps:
            attack.pixels(torch.empty(1, side, side))


_DEFAULT = RobustnessConfig()


def robustness(
    model: Classifier,
    loader: DataLoader,
    threshold: float,
    config: RobustnessConfig = _DEFAULT,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """{"robustness": scores} of a split; shares, but for `centre_shift` in pixels.

    `maps` has a dict for each attack on maps. Its `measures`: for each of
    `similarity.MEASURES`, between the clean and the attacked map of correctly classified
    images, `mean` over those with an iterate that kept the class (as ART reports),
    `flipped_as_same` over all of them with the others unchanged (as IG-NORM does), and
    `under_noise`, the mean for random steps of the same length, the floor of any attack, over
    those of the images of `mean` that they leave in their class. Images whose clean map is constant
    have nothing to move and are counted in `without_map`. Its `boxes`: GT-known and Top-1 Loc of
    gradient maps on all images and on their attacked copies (an image without an iterate that kept
    its class stays as it was), and the difference; left out where an image has no true box.
    `accuracy` has an `accuracy_curve` for each attack on predictions. Intervals are 95 %, over
    images; numbers are None where there is no image.

    Args:
        loader: Over a `ImageDataset`.
        threshold: Of the boxes; not chosen on this split.
        seed: Of the attacks' starts and the bootstrap.

    Raises:
        ValueError: an attack counts more pixels than a map has, or a map is not finite.
    """
    total = len(loader.dataset)
    loader = _spread(loader, total if config.images is None else min(config.images, total))
    return {
        "robustness": {
            "images": len(loader.dataset),
            "of_images": total,
            "seed": seed,
            "maps": [_under(attack, model, loader, threshold, seed) for attack in config.maps],
            "accuracy": [
                accuracy_curve(model, loader, curve, seed=seed) for curve in config.accuracy
            ],
        }
    }


def _spread(loader: DataLoader, images: int) -> DataLoader:
    chosen = np.linspace(0, len(loader.dataset) - 1, images).round().astype(int).tolist()
    subset = Subset(loader.dataset, chosen)
    return DataLoader(subset, loader.batch_size, num_workers=loader.num_workers)


def _under(
    attack: MapAttack, model: Classifier, loader: DataLoader, threshold: float, seed: int
) -> dict[str, Any]:
    torch.manual_seed(seed)
    started = time.perf_counter()
    found: list[Columns] = []
    description = f"attacking {type(attack.attribution).__name__}"
    for batch in tqdm(loader, desc=description, unit="batch", leave=False):
        image, label = batch["image"].to(model.device), batch["label"].to(model.device)
        truths = _true_boxes(loader, batch)
        found.append(_attacked(model, image, label, truths, attack, threshold))
    columns = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    right, mapped, kept = columns["right"], columns["mapped"], columns["kept"]
    counted = {name: values[right & mapped] for name, values in columns.items()}
    boxes = {
        "gt_known_loc": _drop(columns["clean_hit"], columns["attacked_hit"], seed),
        "top1_loc": _drop(columns["clean_hit"] & right, columns["attacked_hit"] & right, seed),
        "threshold": threshold,
    }
    return {
        "attack": _settings(attack),
        "measures": {name: _measure(counted, name, seed) for name in MEASURES},
        **({"boxes": boxes} if columns["boxed"].all() else {}),
        "correct": int(right.sum()),
        "without_map": int((right & ~mapped).sum()),
        "flipped": int((right & mapped & ~kept).sum()),
        "seconds": time.perf_counter() - started,
    }


def _attacked(
    model: Classifier,
    image: Tensor,
    label: Tensor,
    truths: Sequence[np.ndarray],
    attack: MapAttack,
    threshold: float,
) -> Columns:
    """A row per image: whether it is right, has a map and an iterate that was kept, hits, and each
    measure after the attack and (" noise") after noise."""
    result = attack(model, image, label)
    random = dataclasses.replace(attack, goal=Noise())(model, image, label)
    clean, k = _numpy(result.clean), attack.pixels(result.clean)
    columns: dict[str, np.ndarray] = {
        "right": is_right(model, image, label).cpu().numpy(),
        "mapped": np.array([not is_constant(each) for each in clean]),
        "kept": result.kept.cpu().numpy(),
        "kept noise": random.kept.cpu().numpy(),
        "boxed": np.array([len(boxes) > 0 for boxes in truths]),
    }
    for suffix, maps in (("", result.maps), (" noise", random.maps)):
        pairs = zip(clean, _numpy(maps), strict=True)
        rows = [similarities(first, second, k) for first, second in pairs]
        columns |= {name + suffix: np.array([row[name] for row in rows]) for name in MEASURES}
    for name, copies in (("clean_hit", image), ("attacked_hit", result.image)):
        heatmaps = Gradient()(model, copies, label)
        found = [largest_boxes(heatmap, [threshold]) for heatmap in heatmaps]
        overlaps = [
            iou(box, boxes).max(initial=0) for box, boxes in zip(found, truths, strict=True)
        ]
        columns[name] = np.array(overlaps) >= HIT
    return columns


def _true_boxes(loader: DataLoader, batch: Mapping[str, Tensor]) -> list[np.ndarray]:
    """(K,4) of each image, in the batch's pixels."""
    examples, frame = loader.dataset.dataset.examples, batch["image"].shape[:-3:-1]
    return [
        examples[index].resized_boxes(size, frame)
        for index, size in zip(batch["index"].tolist(), batch["size"].tolist(), strict=True)
    ]


def _numpy(maps: Tensor) -> np.ndarray:
    return maps.double().cpu().numpy()


def _settings(attack: MapAttack) -> dict[str, Any]:
    """As plain values; classes by their names."""
    return dataclasses.asdict(attack) | {
        name: {"class": type(part).__name__, **dataclasses.asdict(part)}
        for name in ("attack", "goal", "attribution")
        for part in [getattr(attack, name)]
    }


def _measure(columns: Columns, name: str, seed: int) -> dict[str, Any]:
    values, kept = columns[name], columns["kept"]
    noise = columns[f"{name} noise"][kept & columns["kept noise"]]
    return _mean(values[kept], seed) | {
        "flipped_as_same": float(values.mean()) if len(values) else None,
        "under_noise": float(noise.mean()) if len(noise) else None,
    }


def _drop(clean: np.ndarray, attacked: np.ndarray, seed: int) -> dict[str, Any]:
    """Paired: both on the same images in every resample."""
    return {
        "clean": _mean(clean, seed),
        "attacked": _mean(attacked, seed),
        "change": _mean(attacked.astype(float) - clean, seed),
    }


def _mean(values: Sequence[float] | np.ndarray, seed: int) -> dict[str, Any]:
    values = np.asarray(values, float)
    if not len(values):
        return {"mean": None, "interval": None}
    ends = mean_interval(values, seed=seed)
    return {"mean": float(values.mean()), "interval": ends.tolist()}
