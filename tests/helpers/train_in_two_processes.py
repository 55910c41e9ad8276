"""A script for test_two_processes.py: FOLDER EPOCHS [resume]."""

import sys

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from robust_training.models.classifier import create_model
from robust_training.objectives import Standard
from robust_training.training.fit import fit
from tests.robust_training.training.test_fit import Stripes, loader, recipe

if __name__ == "__main__":
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    torch.manual_seed(0)
    fit(
        create_model("test_resnet", 2, image_size=32),
        Standard(),
        loader(4),
        DataLoader(Stripes(), 8),
        sys.argv[1],
        recipe(milestones=(2,), epochs=int(sys.argv[2])),
        fabric=fabric,
        resume="resume" in sys.argv,
    )
