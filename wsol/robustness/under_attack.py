"""Robustness: attacks on a classifier's maps, boxes and predictions, and the changes they cause."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from robust_training.attacks.map_attack import MapAttack, Noise
from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import IntegratedGradients
from robust_training.attribution.similarity import MEASURES, SMALLEST, is_constant, similarities
from robust_training.models.classifier import Classifier
from robust_training.progress import Progress
from wsol.boxes.geometry import iou
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.dataset import spread_evenly
from wsol.evaluation.metrics import HIT, mean_with_interval
from wsol.heatmaps.heatmap import Component, Gradient, HeatmapMethod, each_heatmap
from wsol.heatmaps.methods import name_of
from wsol.robustness.adversarial_accuracy import (
    AccuracyCurve,
    AutoAttackCurve,
    accuracy_curve,
    is_correct,
)

Columns = Mapping[str, np.ndarray]
BoxesOf = tuple[HeatmapMethod, float]  # a heatmap method and the threshold of its boxes


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
    """The attacks for measuring robustness.

    Attributes:
        maps: Attacks on attribution maps.
        accuracy: Attacks on predictions.
        autoattack: Attacks on predictions by AutoAttack, which needs an optional package.
        images: Number of attacked images, spread evenly over the split. If None, all images.
    """

    maps: list[MapAttack] = field(default_factory=_map_attacks)
    accuracy: list[AccuracyCurve] = field(default_factory=_accuracy_curves)
    autoattack: list[AutoAttackCurve] = field(default_factory=list)
    images: int | None = 100

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise ValueError(f"images of a RobustnessConfig must be at least 1, not {self.images}")

    def require_size(self, side: int) -> None:
        """Raises ValueError if maps of `side` x `side` pixels are too small to be compared."""
        if side < SMALLEST:
            raise ValueError(f"maps need {SMALLEST} pixels a side to be compared, not {side}")
        for attack in self.maps:
            attack.count_pixels(torch.empty(1, side, side))

    def with_component(self, find: Callable[[], Component]) -> "RobustnessConfig":
        """Returns the attacks with a network's principal component in the heatmap methods that they
        change, as `HeatmapMethod.with_component`."""
        maps = []
        for attack in self.maps:
            method = attack.attribution
            if isinstance(method, HeatmapMethod):
                attack = dataclasses.replace(attack, attribution=method.with_component(find))
            maps.append(attack)
        return dataclasses.replace(self, maps=maps)

    def require_runnable(self, classes: int) -> None:
        """Raises ValueError where AutoAttack is not installed or needs more than `classes`
        classes."""
        for curve in self.autoattack:
            curve.attack.require_runnable(classes)


_DEFAULT = RobustnessConfig()


def attacked_method(attack: MapAttack) -> HeatmapMethod:
    """The heatmap method whose boxes are scored under an attack: the attacked method if the attack
    changes the maps of a heatmap method, otherwise `Gradient`."""
    attribution = attack.attribution
    return attribution if isinstance(attribution, HeatmapMethod) else Gradient()


def measure_robustness(
    model: Classifier,
    loader: DataLoader,
    threshold: float | Sequence[float],
    config: RobustnessConfig = _DEFAULT,
    *,
    others: Mapping[str, BoxesOf] = MappingProxyType({}),
    seed: int = 0,
) -> dict[str, Any]:
    """Attacks maps, boxes and predictions of a split. Scores are fractions, `centre_shift` pixels.

    Args:
        loader: Loads an `ImageDataset`.
        threshold: Threshold of the boxes; it must not be chosen on this split. One number, or one
            for each attack on maps.
        others: Name -> other heatmap methods whose boxes are scored on the same attacked images.
        seed: Seed of the attacks' starts and of the bootstrap.

    Returns:
        `maps`, a dict for each attack on maps, and `accuracy`, an `accuracy_curve` for each attack
        on predictions. Intervals are 95 %, over images; numbers are None without images.

        `measures` of `maps` compare the clean with the attacked map by each of
        `similarity.MEASURES`, for correctly classified images, or for all images if the map does
        not explain a class (`Explanation.is_of_class`). Images with a constant clean map are left
        out, and `without_map` is their number. `mean` is over the images with an iterate that keeps
        the class, as ART reports. `flipped_as_same` is over all images, and the others count as
        unchanged, as IG-NORM reports. `under_noise` is the baseline of an attack: the mean for
        random steps of the same length, over the images of `mean` that keep their class under
        noise.

        `boxes` of `maps` are GT-known and Top-1 Loc of `attacked_method`, for clean and attacked
        images, and the difference. An image without an iterate that keeps its class stays clean.
        `other_boxes` are the same for each of `others`. The attack does not know these methods (a
        transfer attack; for a method made from the attacked map, as BPDA of Athalye et al., ICML
        2018), so an attack on them can be stronger. There are no boxes if an image has no true box.

    Raises:
        ValueError: `top_k` of an attack exceeds the pixels of a map, or a map is not finite.
    """
    total = len(loader.dataset)
    thresholds = np.broadcast_to(threshold, len(config.maps)).tolist()
    loader = spread(loader, config.images)
    return {
        "images": len(loader.dataset),
        "of_images": total,
        "seed": seed,
        "maps": [
            _attack_maps(attack, model, loader, each, others, seed)
            for attack, each in zip(config.maps, thresholds, strict=True)
        ],
        "accuracy": [
            accuracy_curve(model, loader, curve, seed=seed)
            for curve in (*config.accuracy, *config.autoattack)
        ],
    }


def spread(loader: DataLoader, images: int | None) -> DataLoader:
    """A loader of `images` of a loader's images, spread evenly; of all if `images` is None."""
    total = len(loader.dataset)
    subset = Subset(loader.dataset, spread_evenly(total, images or total))
    return DataLoader(subset, loader.batch_size, num_workers=loader.num_workers)


def _attack_maps(
    attack: MapAttack,
    model: Classifier,
    loader: DataLoader,
    threshold: float,
    others: Mapping[str, BoxesOf],
    seed: int,
) -> dict[str, Any]:
    method = attacked_method(attack)
    own = name_of(method)
    scored = {own: (method, threshold)}
    scored |= {name: each for name, each in others.items() if name != own}
    torch.manual_seed(seed)
    started = time.perf_counter()
    found: list[Columns] = []
    description = f"attacking {type(attack.attribution).__name__}"
    for batch in Progress(loader, desc=description, unit="batch", leave=False):
        image, label = batch["image"].to(model.device), batch["label"].to(model.device)
        truths = true_boxes(loader, batch)
        found.append(_attack_batch(model, image, label, truths, attack, scored))
    columns = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    correct = columns["correct"]
    counts = correct if attack.attribution.is_of_class else np.ones_like(correct)
    compared = counts & columns["has_map"]
    counted = {name: values[compared] for name, values in columns.items()}
    first, *rest = (
        {
            "gt_known_loc": paired_change(clean, attacked, seed),
            "top1_loc": paired_change(clean & correct, attacked & correct, seed),
            "threshold": limit,
            "heatmap": name,
        }
        for name, (_, limit) in scored.items()
        for clean, attacked in [(columns[f"{name} clean"], columns[f"{name} attacked"])]
    )
    return {
        "attack": _settings(attack),
        "measures": {name: _measure(counted, name, seed) for name in MEASURES},
        **({"boxes": first, "other_boxes": rest} if columns["has_box"].all() else {}),
        "correct": int(correct.sum()),
        "compared": int(compared.sum()),
        "without_map": int((counts & ~compared).sum()),
        "flipped": int((~counted["same_class"]).sum()),
        "seconds": time.perf_counter() - started,
    }


def _attack_batch(
    model: Classifier,
    image: Tensor,
    label: Tensor,
    truths: Sequence[np.ndarray],
    attack: MapAttack,
    scored: Mapping[str, BoxesOf],
) -> Columns:
    """Arrays (N,). bool: an image is classified correctly, has a map that is not constant, keeps
    its class under attack and under noise; its clean and attacked boxes of each heatmap are hits.
    float: each measure of similarity after the attack and, with the suffix " noise", after noise.
    """
    result = attack(model, image, label)
    random = dataclasses.replace(attack, goal=Noise())(model, image, label)
    clean, k = _numpy(result.clean_maps), attack.count_pixels(result.clean_maps)
    columns: dict[str, np.ndarray] = {
        "correct": is_correct(model, image, label).cpu().numpy(),
        "has_map": np.array([not is_constant(each) for each in clean]),
        "same_class": result.kept.cpu().numpy(),
        "same_class noise": random.kept.cpu().numpy(),
        "has_box": np.array([len(boxes) > 0 for boxes in truths]),
    }
    for suffix, maps in (("", result.maps), (" noise", random.maps)):
        pairs = zip(clean, _numpy(maps), strict=True)
        rows = [similarities(first, second, k) for first, second in pairs]
        columns |= {name + suffix: np.array([row[name] for row in rows]) for name in MEASURES}
    methods = [method for method, _ in scored.values()]
    for state, copies in (("clean", image), ("attacked", result.image)):
        heatmaps = each_heatmap(methods, model, copies, label)
        for (name, (_, limit)), maps in zip(scored.items(), heatmaps, strict=True):
            boxes = [largest_boxes(each, [limit])[0] for each in maps]
            columns[f"{name} {state}"] = hits(boxes, truths)
    return columns


def true_boxes(loader: DataLoader, batch: Mapping[str, Tensor]) -> list[np.ndarray]:
    """True boxes (K,4) of each image, in the batch's pixels."""
    examples, frame = loader.dataset.dataset.examples, batch["image"].shape[:-3:-1]
    return [
        examples[index].resized_boxes(size, frame)
        for index, size in zip(batch["index"].tolist(), batch["size"].tolist(), strict=True)
    ]


def hits(boxes: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> np.ndarray:
    """Whether each box (4,) is a hit of one of its image's true boxes (K,4): bool (N,)."""
    pairs = zip(boxes, truths, strict=True)
    return np.array([iou(box, true).max(initial=0) >= HIT for box, true in pairs])


def _numpy(maps: Tensor) -> np.ndarray:
    return maps.double().cpu().numpy()


def _settings(attack: MapAttack) -> dict[str, Any]:
    """Settings of an attack as plain values, with the names of classes."""
    return dataclasses.asdict(attack) | {
        name: {"class": type(part).__name__, **_shown(part)}
        for name in ("attack", "goal", "attribution")
        for part in [getattr(attack, name)]
    }


def _shown(part: Any) -> dict[str, Any]:
    """The fields of a dataclass that its repr shows. They do not contain ddt's component."""
    shown = {each.name for each in dataclasses.fields(part) if each.repr}
    return {name: each for name, each in dataclasses.asdict(part).items() if name in shown}


def _measure(columns: Columns, name: str, seed: int) -> dict[str, Any]:
    values, same_class = columns[name], columns["same_class"]
    noise = columns[f"{name} noise"][same_class & columns["same_class noise"]]
    return mean_with_interval(values[same_class], seed=seed) | {
        "flipped_as_same": float(values.mean()) if len(values) else None,
        "under_noise": float(noise.mean()) if len(noise) else None,
    }


def paired_change(clean: np.ndarray, attacked: np.ndarray, seed: int) -> dict[str, Any]:
    """Scores before and after the attack, and their paired difference."""
    return {
        "clean": mean_with_interval(clean, seed=seed),
        "attacked": mean_with_interval(attacked, seed=seed),
        "change": mean_with_interval(attacked.astype(float) - clean, seed=seed),
    }
