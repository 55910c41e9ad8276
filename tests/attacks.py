"""Attacks whose result is known beforehand, for tests of objectives."""

import torch
from torch import Tensor

from robust_training.attack import PGD


class FixedAttack(PGD):
    """Ends at `result`, whatever it should climb."""

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
    """Starts at a distance that each image's own pixels decide, so that batches may be split."""

    def start(self, image: Tensor) -> Tensor:
        return (image + self.eps * torch.sin(1000 * image)).clamp(0, 1)
