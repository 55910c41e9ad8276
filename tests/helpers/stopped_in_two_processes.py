"""A script for test_two_processes.py: FOLDER.

Trains in FOLDER/whole, where the second process skips a batch that is not finite; and in
FOLDER/parts, which SIGTERM to the second process stops and which then goes on.
"""

import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from robust_training.models.classifier import create_model
from robust_training.objectives import Standard
from robust_training.training.fit import fit
from robust_training.training.interrupts import Stopped
from tests.robust_training.training.test_fit import Stripes, loader, recipe


@dataclass(frozen=True)
class Troubled(Standard):
    """In the second process, at epoch 1.5, a loss that is not finite, and a signal."""

    second: bool = False
    stop: bool = False
    now: bool = False

    def at(self, epoch):
        return replace(self, now=self.second and epoch == 1.5)

    def __call__(self, model, image, label):
        if self.now and self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        terms = super().__call__(model, image, label)
        return {name: value * (float("nan") if self.now else 1) for name, value in terms.items()}


def run(fabric, folder, *, stop=False, resume=False):
    torch.manual_seed(0)
    fit(
        create_model("test_resnet", 2, image_size=32),
        Troubled(second=fabric.global_rank == 1, stop=stop),
        loader(2),
        DataLoader(Stripes(), 8),
        folder,
        recipe(milestones=(2,), epochs=3, skip_nonfinite=1),
        fabric=fabric,
        resume=resume,
    )


def main(folder):
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    run(fabric, folder / "whole")
    try:
        run(fabric, folder / "parts", stop=True)
    except Stopped as stopped:
        assert "in epoch 2, after 6 of 8 batches" in str(stopped)
    else:
        raise AssertionError("the run was not stopped")
    run(fabric, folder / "parts", resume=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
