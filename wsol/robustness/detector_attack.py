"""Attacks on detectors: small changes of an image that move its box."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from robust_training.attacks.pgd import PGD
from robust_training.autograd.batch_norm import attack_mode
from robust_training.progress import Progress
from wsol.boxes.geometry import iou
from wsol.detectors.base import Network, corner_scale
from wsol.evaluation.metrics import mean_with_interval
from wsol.robustness.under_attack import hits, paired_change, spread, true_boxes


@dataclass(frozen=True)
class BoxAttack:
    """An attack on the boxes of a detector.

    It increases the distance (`Network.distance`) to the detector's own box of the clean image. So
    it needs no true box. A refinement by colour (`Regressor.refine`) is not attacked itself, but it
    is part of the scored boxes. Images whose clean box has no area are not changed.

    Attributes:
        attack: Radius, norm and steps.
        images: Number of attacked images, spread evenly over the split. If None, all images.
    """

    attack: PGD = PGD(eps=2 / 255, step_size=0.5 / 255, steps=10)
    images: int | None = 100

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise ValueError(f"images of a BoxAttack must be at least 1, not {self.images}")
        if self.attack.steps < 1:
            raise ValueError(f"attack.steps of a BoxAttack must be at least 1, not {self.attack}")

    def __call__(self, network: Network, image: Tensor, clean: Tensor, label: Tensor) -> Tensor:
        """Attacked copies (N,3,H,W) of images in [0,1] with true classes (N,). The network must be
        in evaluation mode, and `clean` (N,4) are its `best_boxes`."""
        has_area = (clean[:, 2:] > clean[:, :2]).all(dim=1)
        attacked = image.clone()
        if has_area.any():
            target, classes = clean[has_area], label[has_area]
            with attack_mode(network, "running"):
                attacked[has_area] = self.attack(
                    lambda changed: network.distance(changed, target, classes), image[has_area]
                )
        return attacked


@torch.no_grad()
def best_boxes(network: Network, image: Tensor, label: Tensor) -> Tensor:
    """The most probable box of each image's class (N,): (N,4), fractions of the image's sides."""
    found = zip(network.detect(image), label.tolist(), strict=True)
    return torch.stack([each.best_box(own) for each, own in found])


def attack_detector(
    network: Network, loader: DataLoader, config: BoxAttack, *, seed: int = 0
) -> dict[str, Any]:
    """Attacks a detector's boxes in images of a split. Scores are fractions, with 95 % intervals
    over images.

    Args:
        loader: Loads an `ImageDataset`.
        seed: Seed of the attack's starts and of the bootstrap.

    Returns:
        `gt_known_loc`: clean, attacked and their paired change; `under_noise`: the same score for
        random images in the ball of the attack, its baseline; `iou_with_clean`: IoU of attacked and
        clean boxes; the numbers of images, and the settings.
    """
    torch.manual_seed(seed)
    noise = dataclasses.replace(config.attack, steps=0, random_start=True)
    total, loader = len(loader.dataset), spread(loader, config.images)
    rows: list[Mapping[str, np.ndarray]] = []
    for batch in Progress(loader, desc="attacking boxes", unit="batch", leave=False):
        image = batch["image"].to(network.backbone.device, memory_format=torch.channels_last)
        label = batch["label"].to(image.device)
        clean = best_boxes(network, image, label)
        boxes = {
            "clean": clean,
            "noise": best_boxes(network, noise.start(image), label),
            "attacked": best_boxes(network, config(network, image, clean, label), label),
        }
        found = {
            name: (each * corner_scale(image)).cpu().double().numpy()
            for name, each in boxes.items()
        }
        truths = true_boxes(loader, batch)
        rows.append(
            {
                **{name: hits(boxes, truths) for name, boxes in found.items()},
                "overlap": iou(found["attacked"], found["clean"]),
            }
        )
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {
        "box_attack": dataclasses.asdict(config),
        "images": len(columns["clean"]),
        "of_images": total,
        "seed": seed,
        "gt_known_loc": paired_change(columns["clean"], columns["attacked"], seed),
        "under_noise": mean_with_interval(columns["noise"], seed=seed),
        "iou_with_clean": mean_with_interval(columns["overlap"], seed=seed),
    }
