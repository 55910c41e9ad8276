"""Attacks that change a map by a small change of the image. The predicted class stays the same."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_training.attacks.base import Attack
from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import (
    Differentiation,
    Explanation,
    InputGradient,
    Maps,
)
from robust_training.attribution.similarity import check_top_k, pixel_count, top_k_intersection
from robust_training.autograd.batch_norm import attack_mode
from robust_training.autograd.curvature import Curvature, Recomputed, Score
from robust_training.models.classifier import Classifier


class Goal(ABC):
    """A score of maps that an attack increases (Ghorbani et al., AAAI 2019, arXiv 1710.10547).

    The goals below are in the authors' utils.py. Subclasses are frozen dataclasses.
    """

    @abstractmethod
    def score(self, maps: Maps, clean_maps: Tensor, k: int) -> Score:
        """Return the score that the attack increases.

        Args:
            maps: A differentiable function from images to maps (N,H,W). The pixels of each map sum
                to 1.
            clean_maps: (N,H,W), the maps of the clean images.
            k: Number of largest pixels; only `TopK` uses it.
        """


@dataclass(frozen=True)
class TopK(Goal):
    """Reduces the sum over the k largest pixels of the clean map."""

    def score(self, maps: Maps, clean_maps: Tensor, k: int) -> Score:
        support = clean_maps.flatten(1).topk(k).indices
        return lambda image: -maps(image).flatten(1).gather(1, support).sum(dim=1)


@dataclass(frozen=True)
class MassCentre(Goal):
    """Moves the map's centre of mass away from the clean map's centre.

    The clean map's centre is rounded down to whole pixels.
    """

    def score(self, maps: Maps, clean_maps: Tensor, k: int) -> Score:
        origin = _centre(clean_maps / _sums(clean_maps)).trunc()
        return lambda image: (_centre(maps(image)) - origin).square().sum(dim=1)


@dataclass(frozen=True)
class Region(Goal):
    """Increases the sum over a box of at least one pixel.

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

    def score(self, maps: Maps, clean_maps: Tensor, k: int) -> Score:
        height, width = clean_maps.shape[1:]
        rows = slice(int(self.y0 * height), math.ceil(self.y1 * height))
        columns = slice(int(self.x0 * width), math.ceil(self.x1 * width))
        return lambda image: maps(image)[:, rows, columns].sum(dim=(1, 2))


@dataclass(frozen=True)
class Noise(Goal):
    """Moves the image in a new random direction at every step, as a baseline for attacks."""

    def score(self, maps: Maps, clean_maps: Tensor, k: int) -> Score:
        return lambda image: (torch.randn_like(image) * image).sum(dim=(1, 2, 3))


@dataclass(frozen=True)
class Attacked:
    """The result of an attack on maps.

    Attributes:
        image: (N,3,H,W). Among the iterates with the clean image's predicted class, the one with
            the smallest intersection. Without such an iterate, the clean image.
        kept: bool (N,), whether there is such an iterate.
        intersection: (N,), top-k intersection of the clean map and the map of `image`.
        clean_maps: (N,H,W), the maps of the clean images.
        maps: (N,H,W), the maps of `image`.
    """

    image: Tensor
    kept: Tensor
    intersection: Tensor
    clean_maps: Tensor
    maps: Tensor


@dataclass(frozen=True)
class MapAttack:
    """An attack that increases the goal's score and keeps the best iterate of each image.

    The best iterate has the clean image's predicted class, and its map has the smallest top-k
    intersection with the clean map. The authors' code starts at the image itself (`random_start:
    false`). Maps are computed from the given class's logit with the unchanged network. Step
    directions are computed with softplus in place of ReLU. For the same start, the result of an
    image does not depend on the batch.

    Attributes:
        attack: Sets the radius and the steps.
        goal: Defines the score of maps that the attack increases.
        top_k: Number (int) or fraction (float) of largest pixels that are compared.
        restarts: Number of random starts.
        attribution: The attribution that gives the attacked maps.
        beta: Sharpness of the softplus that replaces ReLU for step directions. If None, ReLU stays.
        curvature: The way in which maps are differentiated for the step direction. For integrated
            gradients, the memory contains one point's graph and all points' images.
        stop_at: The attack on an image stops when its intersection is at most this value.
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
            ValueError: A map contains NaN or infinity, or has fewer than `top_k` pixels.
        """
        with attack_mode(model, "running"):
            clean_maps = self.maps(model, image, label)
            if not clean_maps.isfinite().all():
                raise ValueError(
                    "a map of these images is not finite: the model's weights are damaged"
                )
            found = Attacked(
                image.clone(),
                torch.zeros(len(image), dtype=torch.bool, device=image.device),
                torch.ones(len(image), device=image.device),
                clean_maps,
                clean_maps.clone(),
            )
            for _ in range(self.restarts):
                self._perturb(model, image, label, found)
        return found

    def _perturb(self, model: Classifier, image: Tensor, label: Tensor, found: Attacked) -> None:
        """Run the attack once, and store each image's iterate in `found` if it is better."""
        clean_maps, k = found.clean_maps, self.count_pixels(found.clean_maps)
        predicted = _predicted(model, image)
        perturbed = self.attack.start(image)
        for _ in range(self.attack.steps):
            rows = (~(found.kept & (found.intersection <= self.stop_at))).nonzero()[:, 0]
            if not len(rows):
                return
            score = self.goal.score(self._unit_maps(model, label[rows]), clean_maps[rows], k)
            moved = self.attack.step(score, image[rows], perturbed[rows])
            perturbed[rows] = moved
            maps = self.maps(model, moved, label[rows])
            common = top_k_intersection(clean_maps[rows].flatten(1), maps.flatten(1), k)
            better = ~found.kept[rows] | (common < found.intersection[rows])
            better &= _predicted(model, moved) == predicted[rows]
            found.image[rows[better]] = moved[better]
            found.intersection[rows[better]] = common[better]
            found.maps[rows[better]] = maps[better]
            found.kept[rows[better]] = True

    def maps(self, model: Classifier, image: Tensor, label: Tensor) -> Tensor:
        """Return the maps (N,H,W) without softplus."""
        return self.attribution.maps(model, label)(image)

    def count_pixels(self, maps: Tensor) -> int:
        """Return `top_k` as a number of pixels of maps (N,H,W)."""
        size = maps.shape[1] * maps.shape[2]
        count = pixel_count(self.top_k, size)
        if count > size:
            raise ValueError(f"top_k of MapAttack is {count} pixels, and a map has {size}")
        return count

    def _unit_maps(self, model: Classifier, label: Tensor) -> Maps:
        """Return the function from images to maps with softplus; each map sums to 1."""
        several = self.attribution.points > 1
        curvature = Recomputed(self.curvature) if several else self.curvature
        how = Differentiation(curvature=curvature, beta=self.beta)
        maps = self.attribution.maps(model, label, how)

        def unit_maps(image: Tensor) -> Tensor:
            found = maps(image)
            return found / _sums(found)

        return unit_maps


@torch.no_grad()
def _predicted(model: Classifier, image: Tensor) -> Tensor:
    return model(image).argmax(dim=1)


def _sums(maps: Tensor) -> Tensor:
    """Return the sum of each map; infinity in place of 0, so that a map of zeros stays zero."""
    sums = maps.sum(dim=(1, 2), keepdim=True)
    return sums.masked_fill(sums == 0, torch.inf)


def _centre(maps: Tensor) -> Tensor:
    """Return the centres (N,2), in pixels, of maps (N,H,W) that sum to 1."""
    rows, columns = (torch.arange(n, device=maps.device, dtype=maps.dtype) for n in maps.shape[1:])
    return torch.stack([maps.sum(dim=2) @ rows, maps.sum(dim=1) @ columns], dim=1)
