"""All objectives, and attacks with a known result."""

import torch
from torch import Tensor

from robust_training import objectives
from robust_training.attacks.pgd import PGD


def constructible() -> list[type[objectives.Objective]]:
    """Every objective that needs no arguments."""
    found = [vars(objectives)[name] for name in objectives.__all__]
    none = (objectives.Objective, objectives.Sum)
    return [kind for kind in found if issubclass(kind, objectives.Objective) and kind not in none]


class FixedAttack(PGD):
    """Ends at `result`, for every score."""

    result: Tensor

    def start(self, image: Tensor) -> Tensor:
        return self.result.clone()

    def __call__(self, score, image, start=None) -> Tensor:
        return self.result


def fixed(result: Tensor) -> FixedAttack:
    attack = FixedAttack(steps=1)
    object.__setattr__(attack, "result", result)
    return attack


class PatternAttack(PGD):
    """Starts at a distance that each image's own pixels set, so that batches can be split."""

    def start(self, image: Tensor) -> Tensor:
        return (image + self.eps * torch.sin(1000 * image)).clamp(0, 1)
