"""A script for test_two_processes.py: FOLDER.

Everything that two processes do together, in one start of them, since a start takes long:
FOLDER/whole, 3 epochs of training; FOLDER/first, 1 epoch, and FOLDER/parts, its continuation.
FOLDER/skipped/whole, where the second process skips a batch that is not finite;
FOLDER/skipped/parts, which SIGTERM to the second process stops and which then goes on.
FOLDER/gradients.pt, gradients of the first process.
"""

import os
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from robust_training.models.creating import create_model
from robust_training.objectives import Standard
from robust_training.training.fit import fit
from robust_training.training.interrupts import Stopped
from tests.helpers.each_objective import gradients
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


def train(fabric, folder, objective, batch, *, resume=False, **settings):
    torch.manual_seed(0)
    fit(
        create_model("test_resnet", 2, image_size=32),
        objective,
        loader(batch),
        DataLoader(Stripes(), 8),
        folder,
        recipe(milestones=(2,), **settings),
        fabric=fabric,
        resume=resume,
    )


def train_in_parts(fabric, folder):
    train(fabric, folder / "whole", Standard(), 4, epochs=3)
    train(fabric, folder / "first", Standard(), 4, epochs=1)
    if fabric.is_global_zero:
        shutil.copytree(folder / "first", folder / "parts")
    fabric.barrier()
    train(fabric, folder / "parts", Standard(), 4, epochs=3, resume=True)


def skip_and_stop(fabric, folder):
    settings = {"epochs": 3, "skip_nonfinite": 1}
    second = Troubled(second=fabric.global_rank == 1)
    train(fabric, folder / "whole", second, 2, **settings)
    try:
        train(fabric, folder / "parts", replace(second, stop=True), 2, **settings)
    except Stopped as stopped:
        assert "in epoch 2, after 6 of 8 batches" in str(stopped)
    else:
        raise AssertionError("the run was not stopped")
    train(fabric, folder / "parts", second, 2, resume=True, **settings)


def main(folder):
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    train_in_parts(fabric, folder)
    skip_and_stop(fabric, folder / "skipped")
    double = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="64-true")
    double.launch()
    found = gradients(double)
    if double.is_global_zero:
        torch.save(found, folder / "gradients.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
