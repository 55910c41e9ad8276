"""The interface of an attack: small changes of the images that increase a score."""

from abc import ABC, abstractmethod

from torch import Tensor

from robust_training.autograd.curvature import Score


class Attack(ABC):
    """Changes images in `steps` steps so that a score increases.

    Subclasses are frozen dataclasses and define `step`. They may have `steps` and `random_start` as
    fields, and may override `start`.

    Attributes:
        steps: Number of steps; with 0 steps, the attack returns its start.
        random_start: Whether `start` is random, so that two runs may differ.
    """

    steps: int = 1
    random_start: bool = False

    def start(self, image: Tensor) -> Tensor:
        """Return the images (N,3,H,W) in [0,1] from which the attack takes its first step."""
        return image.detach().clone()

    @abstractmethod
    def step(self, score: Score, image: Tensor, perturbed: Tensor) -> Tensor:
        """Return `perturbed` after one more step, detached.

        Args:
            score: The score that the step increases.
            image: (N,3,H,W) in [0,1], the clean images, which limit the change.
            perturbed: (N,3,H,W) in [0,1], the images after the steps so far.
        """

    def __call__(self, score: Score, image: Tensor, start: Tensor | None = None) -> Tensor:
        """Return the attacked images (N,3,H,W) in [0,1], detached.

        Args:
            start: The images to begin at. If None, `start(image)` is used.
        """
        perturbed = self.start(image) if start is None else start
        for _ in range(self.steps):
            perturbed = self.step(score, image, perturbed)
        return perturbed.detach()
