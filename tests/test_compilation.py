"""The network through torch.compile: the same numbers, whatever ran before."""

import shutil

import pytest
import torch

from robust_training.attack import PGD
from robust_training.compilation import compile_model
from robust_training.model import create_model
from robust_training.objectives import ART, Carried
from tests.conftest import cosine


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("name", ["resnet10t", "test_vit"])
def test_compiled_gradients_are_the_plain_ones(name):
    """Attack first, then the weights, of both terms: plain torch.compile mixes the two up."""
    generator = torch.Generator().manual_seed(1)
    image, label = torch.rand(4, 3, 64, 64, generator=generator), torch.arange(4)
    noise = 0.01 * torch.randn(image.shape, generator=generator)
    gradients = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = create_model(name, 4, image_size=64).train()
        torch.nn.init.normal_(model.backbone.get_classifier().weight, std=0.05)
        if compiled:
            compile_model(model)
        first = {"curvature": "finite_difference", "attack_curvature": "finite_difference"}
        ART(attack=PGD(2 / 255, 2 / 255, 1), **first).perturb(model, image, label)
        art = ART(attack=PGD(steps=0), **first)
        terms = art.carry_on(model, image, label, Carried((image + noise).clamp(0, 1)))
        parameters = list(model.parameters())
        gradients.append(
            [
                torch.autograd.grad(
                    term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                for term in terms.values()
            ]
        )
    for plain, compiled in zip(*gradients, strict=True):
        assert cosine(plain, compiled) > 0.98
