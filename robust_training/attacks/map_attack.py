"""Attacks on attribution maps: a small change of the image that keeps its predicted class."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_training.attacks.base import Attack
from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import Explanation, InputGradient, Maps
from robust_training.attribution.similarity import check_top_k, pixel_count, top_k_intersection
from robust_training.autograd.batch_norm import under_attack
from robust_training.autograd.curvature import Curvature, Recomputed, Score
from robust_training.models.classifier import Classifier


class Goal(ABC):
    """A score of maps that an attack raises (Ghorbani et al., AAAI 2019, arXiv 1710.10547).

    The goals below are those of the authors' utils.py. Subclasses are frozen dataclasses.
    """

    @abstractmethod
    def score(self, maps: Maps, clean: Tensor, k: int) -> Score:
        """Return the score that the attack raises.

        Args:
            maps: Images -> maps (N,H,W) whose pixels sum to 1; it can be differentiated.
            clean: (N,H,W), the maps of the clean images.
            k: Number of largest pixels that count.
        """


@dataclass(frozen=True)
class TopK(Goal):
    """Removes mass from the k largest pixels of the clean map."""

    def score(self, maps: Maps, clean: Tensor, k: int) -> Score:
        support = clean.flatten(1).topk(k).indices
        return lambda image: -maps(image).flatten(1).gather(1, support).sum(dim=1)


@dataclass(frozen=True)
class MassCentre(Goal):
    """Moves the centre of mass away from that of the clean map, in whole pixels."""

    def score(self, maps: Maps, clean: Tensor, k: int) -> Score:
        origin = _centre(clean / _mass(clean)).trunc()
        return lambda image: (_centre(maps(image)) - origin).square().sum(dim=1)


@dataclass(frozen=True)
class Region(Goal):
    """Moves mass into a box of at least one pixel.

    Attributes:
        x0, y0, x1, y1: Corners of the box, as fractions of width and height.
    """

    x0: float = 0.0
    y0: float = 0.0
    x1: float = 0.25
    y1: float = 0.25

    def __post_init__(self) -> None:
        if not (0 <= self.x0 < self.x1 <= 1 and 0 <= self.y0 < self.y1 <= 1):
            raise ValueError(f"a Region needs 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, not {self}")

    def score(self, maps: Maps, clean: Tensor, k: int) -> Score:
        height, width = clean.shape[1:]
        rows = slice(int(self.y0 * height), math.ceil(self.y1 * height))
        columns = slice(int(self.x0 * width), math.ceil(self.x1 * width))
        return lambda image: maps(image)[:, rows, columns].sum(dim=(1, 2))


@dataclass(frozen=True)
class Noise(Goal):
    """Takes a new random direction at every step: the baseline of every attack."""

    def score(self, maps: Maps, clean: Tensor, k: int) -> Score:
        return lambda image: (torch.randn_like(image) * image).sum(dim=(1, 2, 3))


@dataclass(frozen=True)
class Attacked:
    """The result of an attack on maps.

    Attributes:
        image: (N,3,H,W), the iterate with the smallest intersection, of all that kept the predicted
            class; the clean image if none did.
        kept: bool (N,), whether an iterate kept the predicted class.
        intersection: (N,), top-k intersection of the clean map and the map of `image`.
        clean: (N,H,W), the maps of the clean images.
        maps: (N,H,W), the maps of `image`.
    """

    image: Tensor
    kept: Tensor
    intersection: Tensor
    clean: Tensor
    maps: Tensor


@dataclass(frozen=True)
class MapAttack:
    """An attack that raises a goal and keeps the best iterate of each image.

    The best iterate has the smallest top-k intersection of its map with the clean map, of all that
    keep the predicted class. The source starts at the image itself (`random_start: false`). Maps
    are those of the logit of the given class, by the network itself; the direction of a step is
    that of the network with softplus. Images do not depend on each other: each has the result that
    it would have alone from the same start.

    Attributes:
        attack: Sets the radius and the steps.
        goal: The score of maps that is raised.
        top_k: The pixels whose intersection counts: a number (int) or a fraction (float).
        restarts: Number of random starts.
        attribution: The attribution whose maps are attacked.
        beta: Sharpness of the softplus that replaces ReLU for the direction; None keeps ReLU.
        curvature: The way maps are differentiated for the direction. It needs memory for one point
            of a path, and for the images of all points.
        stop_at: An image is attacked no further once its intersection is at most this.
    """

    attack: Attack = PGD(eps=2 / 255, step_size=0.5 / 255, steps=10)
    goal: Goal = TopK()
    top_k: int | float = 0.1
    restarts: int = 1
    attribution: Explanation = InputGradient()
    beta: float | None = 50.0
    curvature: Curvature = "finite_difference"
    stop_at: float = 0.0

    def __post_init__(self) -> None:
        check_top_k("MapAttack", self.top_k)
        if self.attack.steps < 1:
            raise ValueError(
                f"attack.steps of MapAttack must be at least 1, not {self.attack.steps}"
            )
        if self.restarts < 1 or (self.restarts > 1 and not self.attack.random_start):
            raise ValueError(
                "restarts of MapAttack must be at least 1, and 1 without a random start, not "
                f"{self.restarts}"
            )
        if not 0 <= self.stop_at <= 1:
            raise ValueError(
                f"stop_at of MapAttack must be a fraction in [0, 1], not {self.stop_at}"
            )

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> Attacked:
        """Attack the maps of images (N,3,H,W) in [0,1] for their classes (N,).

        The model must be in evaluation mode.

        Raises:
            ValueError: a map of the images holds NaN or infinity, or fewer than `top_k` pixels.
        """
        with under_attack(model, "running"):
            clean = self.maps(model, image, label)
            if not clean.isfinite().all():
                raise ValueError(
                    "a map of these images is not finite: the model's weights are damaged"
                )
            found = Attacked(
                image.clone(),
                torch.zeros(len(image), dtype=torch.bool, device=image.device),
                torch.ones(len(image), device=image.device),
                clean,
                clean.clone(),
            )
            for _ in range(self.restarts):
                self._perturb(model, image, label, found)
        return found

    def _perturb(self, model: Classifier, image: Tensor, label: Tensor, found: Attacked) -> None:
        """Run the attack once; iterates better than those in `found` replace them."""
        clean, k = found.clean, self.pixels(found.clean)
        predicted = _predicted(model, image)
        perturbed = self.attack.start(image)
        for _ in range(self.attack.steps):
            rows = self._unfinished(found)
            if not len(rows):
                return
            score = self.goal.score(self._unit_maps(model, label[rows]), clean[rows], k)
            moved = self.attack.step(score, image[rows], perturbed[rows])
            perturbed[rows] = moved
            maps = self.maps(model, moved, label[rows])
            common = top_k_intersection(clean[rows].flatten(1), maps.flatten(1), k)
            better = ~found.kept[rows] | (common < found.intersection[rows])
            better &= _predicted(model, moved) == predicted[rows]
            found.image[rows[better]] = moved[better]
            found.intersection[rows[better]] = common[better]
            found.maps[rows[better]] = maps[better]
            found.kept[rows[better]] = True

    def _unfinished(self, found: Attacked) -> Tensor:
        """Return the numbers of the images that are attacked further."""
        return (~(found.kept & (found.intersection <= self.stop_at))).nonzero()[:, 0]

    def maps(self, model: Classifier, image: Tensor, label: Tensor) -> Tensor:
        """Return the maps (N,H,W) of the network itself."""
        return self.attribution.maps(model, label)(image)

    def pixels(self, maps: Tensor) -> int:
        """Return how many pixels of maps (N,H,W) count."""
        size = maps.shape[1] * maps.shape[2]
        count = pixel_count(self.top_k, size)
        if count > size:
            raise ValueError(f"top_k of MapAttack is {count} pixels, and a map has {size}")
        return count

    def _unit_maps(self, model: Classifier, label: Tensor) -> Maps:
        """Return the maps of the smooth network, each with a sum of 1."""
        several = self.attribution.points > 1
        curvature = Recomputed(self.curvature) if several else self.curvature
        maps = self.attribution.maps(
            model, label, create_graph=True, curvature=curvature, beta=self.beta
        )

        def unit_maps(image: Tensor) -> Tensor:
            found = maps(image)
            return found / _mass(found)

        return unit_maps


@torch.no_grad()
def _predicted(model: Classifier, image: Tensor) -> Tensor:
    return model(image).argmax(dim=1)


def _mass(maps: Tensor) -> Tensor:
    mass = maps.sum(dim=(1, 2), keepdim=True)
    return mass.masked_fill(mass == 0, torch.inf)


def _centre(maps: Tensor) -> Tensor:
    """Return the centres (N,2), in pixels, of maps (N,H,W) whose mass is 1."""
    axes = (torch.arange(n, device=maps.device, dtype=maps.dtype) for n in maps.shape[1:])
    rows, columns = axes
    return torch.stack([maps.sum(dim=2) @ rows, maps.sum(dim=1) @ columns], dim=1)
