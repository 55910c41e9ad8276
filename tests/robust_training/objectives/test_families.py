"""ART on every kind of network that timm has."""

import numpy as np
import pytest
import timm
import torch

from robust_training.attacks.pgd import PGD
from robust_training.models.classifier import Classifier
from robust_training.objectives import ART

FAMILIES = {
    "resnet10t": {"channels": (16, 24, 32, 48)},
    "resnext50_32x4d": {
        "layers": (1, 1, 1, 1),
        "channels": (16, 24, 32, 48),
        "cardinality": 4,
        "base_width": 16,
    },
    "regnety_002": {"depth": 7},  # of 13; four stages
    "vgg11_bn": {"cfg": (16, "M", 24, "M", 32, "M"), "mlp_ratio": 0.02},
    "densenet121": {"block_config": (2, 2, 2, 2), "growth_rate": 8},
    "tinynet_e": {},  # a very small EfficientNet
    "mobilenetv2_035": {},
    "mobilenetv3_small_050": {},
    "convnext_atto": {"dims": (16, 16, 24, 32), "depths": (1, 1, 1, 1)},
    "vit_tiny_patch16_224": {"depth": 3, "embed_dim": 48, "img_size": 32, "patch_size": 8},
    "deit_tiny_patch16_224": {"depth": 3, "embed_dim": 48, "img_size": 32, "patch_size": 8},
    "swin_tiny_patch4_window7_224": {
        "img_size": 32,
        "embed_dim": 24,
        "depths": (1, 1),
        "num_heads": (2, 4),
        "window_size": 4,
    },
}
SIZES = {"mobilenetv2_035": 48}  # at 32 px the last map has one pixel: too few for batch statistics


def small(name: str) -> Classifier:
    """A small network of the family with random weights."""
    torch.manual_seed(0)
    settings = FAMILIES[name]
    if name == "vgg11_bn":  # its factory fixes the widths
        norm = torch.nn.BatchNorm2d
        backbone = timm.models.VGG(**settings, num_classes=3, norm_layer=norm)
    else:
        backbone = timm.create_model(name, num_classes=3, **settings)
    return Classifier(backbone, (0.5,) * 3, (0.25,) * 3).train()


QUICK = {
    # double backward of depthwise and grouped convolutions is slow on a CPU
    "exact": ("resnet10t", "vgg11_bn", "convnext_atto", "vit_tiny_patch16_224"),
    # the others run in .ci/run
    "finite_difference": ("resnet10t", "tinynet_e", "convnext_atto", "vit_tiny_patch16_224"),
}
MARKS = {"exact": pytest.mark.slow, "finite_difference": pytest.mark.ci}
CASES = [
    pytest.param(name, curvature, marks=() if name in names else MARKS[curvature])
    for curvature, names in QUICK.items()
    for name in FAMILIES
]


@pytest.mark.parametrize(("name", "curvature"), CASES)
def test_art_trains_every_family(name, curvature):
    """12 steps on one batch: always finite, and the loss falls."""
    model = small(name)
    size = SIZES.get(name, 32)
    image, label = torch.rand(6, 3, size, size), torch.arange(6) % 3
    art = ART(attack=PGD(2 / 255, 2 / 255, 1), curvature=curvature, attack_curvature=curvature)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = sum(art(model, image, label).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
