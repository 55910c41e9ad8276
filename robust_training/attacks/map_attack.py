"""Attacks on explanations: the image hardly changes, the class not at all, the map does."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import Explanation, InputGradient, Maps
from robust_training.attribution.similarity import check_top_k, pixel_count, top_k_intersection
from robust_training.autograd.batch_norm import under_attack
from robust_training.autograd.curvature import Curvature, Recomputed, Score
from robust_training.models.classifier import Classifier


class Goal(ABC):
    """What an attack on maps climbs (Ghorbani et al., AAAI 2019, arXiv 1710.10547; utils.py).
    Subclasses are frozen dataclasses."""

    @abstractmethod
    def score(self, maps: Maps, clean: Tensor, k: int) -> Score:
        """Given the clean maps (N,H,W); `maps` can be differentiated and have a mass of 1."""


@dataclass(frozen=True)
class TopK(Goal):
    """Takes mass away from the k largest pixels of the clean map."""

    def score(self, maps: Maps, clean: Tensor, k: int) -> Score:
        support = clean.flatten(1).topk(k).indices
        return lambda image: -maps(image).flatten(1).gather(1, support).sum(dim=1)


@dataclass(frozen=True)
class MassCentre(Goal):
    """Moves the centre of mass away from the clean map's, whole pixels as in the source."""

    def score(self, maps: Maps, clean: Tensor, k: int) -> Score:
        origin = _centre(clean / _mass(clean)).trunc()
        return lambda image: (_centre(maps(image)) - origin).square().sum(dim=1)


@dataclass(frozen=True)
class Region(Goal):
    """Draws mass into a box, of at least one pixel.

    Attributes:
        x0, y0, x1, y1: Its corners, as shares of width and height.
    """

    x0: float = 0.0
    y0: float = 0.0
    x1: float = 0.25
    y1: float = 0.25

    def __post_init__(self) -> None:
        if not (0 <= self.x0 < self.x1 <= 1 and 0 <= self.y0 < self.y1 <= 1):
            raise ValueError(f"a Region needs 0 <= x0 < x1 <= 1, the same for y, not {self}")

    def score(self, maps: Maps, clean: Tensor, k: int) -> Score:
        height, width = clean.shape[1:]
        rows = slice(int(self.y0 * height), math.ceil(self.y1 * height))
        columns = slice(int(self.x0 * width), math.ceil(self.x1 * width))
        return lambda image: maps(image)[:, rows, columns].sum(dim=(1, 2))


@dataclass(frozen=True)
class Noise(Goal):
    """A new random direction at every step: what an attack must beat."""

    def score(self, maps: Maps, clean: Tensor, k: int) -> Score:
        return lambda image: (torch.randn_like(image) * image).sum(dim=(1, 2, 3))


@dataclass(frozen=True)
class Attacked:
    """What an attack on maps left.

    Attributes:
        image: (N,3,H,W), the iterate whose map shares least with the clean one, of those that kept
            the predicted class; the clean image where none did.
        kept: bool (N,), whether one did.
        intersection: (N,) top-k intersection of both maps.
        clean: (N,H,W), the maps before.
        maps: (N,H,W), those of `image`.
    """

    image: Tensor
    kept: Tensor
    intersection: Tensor
    clean: Tensor
    maps: Tensor


@dataclass(frozen=True)
class MapAttack:
    """Ascent of a goal; of all iterates that keep the predicted class, the one whose map shares
    least of its top pixels with the clean map.

    The source starts at the image itself (`random_start` of the attack off). Maps are those of the
    logit of the class given, by the network itself; its smooth copy gives the direction. Images of
    a batch do not meet: each has the result that it has alone from the same start.

    Attributes:
        attack: How far, in how many steps.
        goal: What is climbed.
        top_k: The pixels whose intersection counts: a number (int) or a share (float).
        restarts: From how many starts.
        attribution: Whose maps.
        beta: Of the softplus that stands in for ReLU in the direction; None keeps the network.
        curvature: How the direction is differentiated. Memory is that of one point of a path and
            the images of all.
        stop_at: An image whose intersection has come down to this is left alone from then on.
    """

    attack: PGD = PGD(eps=2 / 255, step_size=0.5 / 255, steps=10)
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
            raise ValueError(f"stop_at of MapAttack must be a share in [0, 1], not {self.stop_at}")

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> Attacked:
        """Images (N,3,H,W) in [0,1] and their classes (N,); the model in evaluation mode.

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
                self._climb(model, image, label, found)
        return found

    def _climb(self, model: Classifier, image: Tensor, label: Tensor, found: Attacked) -> None:
        """Once from start to end; what is better than `found` replaces it there."""
        clean, k = found.clean, self.pixels(found.clean)
        predicted = _predicted(model, image)
        perturbed = self.attack.start(image)
        for _ in range(self.attack.steps):
            rows = self._open(found)
            if not len(rows):
                return
            score = self.goal.score(self._directing(model, label[rows]), clean[rows], k)
            moved = self.attack.step(score, image[rows], perturbed[rows])
            perturbed[rows] = moved
            maps = self.maps(model, moved, label[rows])
            shared = top_k_intersection(clean[rows].flatten(1), maps.flatten(1), k)
            better = ~found.kept[rows] | (shared < found.intersection[rows])
            better &= _predicted(model, moved) == predicted[rows]
            found.image[rows[better]] = moved[better]
            found.intersection[rows[better]] = shared[better]
            found.maps[rows[better]] = maps[better]
            found.kept[rows[better]] = True

    def _open(self, found: Attacked) -> Tensor:
        """Numbers of the images that are attacked further."""
        return (~(found.kept & (found.intersection <= self.stop_at))).nonzero()[:, 0]

    def maps(self, model: Classifier, image: Tensor, label: Tensor) -> Tensor:
        """(N,H,W), by the network itself."""
        return self.attribution.maps(model, label)(image)

    def pixels(self, maps: Tensor) -> int:
        """How many pixels of maps (N,H,W) count."""
        size = maps.shape[1] * maps.shape[2]
        count = pixel_count(self.top_k, size)
        if count > size:
            raise ValueError(f"top_k of MapAttack is {count} pixels, and a map has {size}")
        return count

    def _directing(self, model: Classifier, label: Tensor) -> Maps:
        several = self.attribution.points > 1
        curvature = Recomputed(self.curvature) if several else self.curvature
        maps = self.attribution.maps(
            model, label, create_graph=True, curvature=curvature, beta=self.beta
        )

        def shares(image: Tensor) -> Tensor:
            found = maps(image)
            return found / _mass(found)

        return shares


@torch.no_grad()
def _predicted(model: Classifier, image: Tensor) -> Tensor:
    return model(image).argmax(dim=1)


def _mass(maps: Tensor) -> Tensor:
    mass = maps.sum(dim=(1, 2), keepdim=True)
    return mass.masked_fill(mass == 0, torch.inf)


def _centre(maps: Tensor) -> Tensor:
    """(N,2) of maps (N,H,W) whose mass is 1, in pixels."""
    axes = (torch.arange(n, device=maps.device, dtype=maps.dtype) for n in maps.shape[1:])
    rows, columns = axes
    return torch.stack([maps.sum(dim=2) @ rows, maps.sum(dim=1) @ columns], dim=1)
