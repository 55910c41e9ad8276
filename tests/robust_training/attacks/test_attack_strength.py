"""The strength of ART's attacks on real photographs."""

import itertools

import pytest
import torch

from robust_training.attacks.pgd import PGD
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score
from robust_training.autograd.batch_norm import attack_mode
from robust_training.models.creating import create_model
from robust_training.objectives import ART
from wsol.data.loaders import DataConfig


@pytest.mark.slow
def test_a_first_order_attack_reaches_the_loss_of_the_exact_attack(shared):
    """On 100 photographs, each used three times, three steps from the same start reach at least
    98 % of the exact attack's gain. Sign steps amplify rounding: one pass varies by several %."""
    weights = shared / "weights" / "mobilenetv2_100.imagenet.safetensors"
    torch.manual_seed(0)
    model = create_model("mobilenetv2_100", 10, weights=weights, image_size=96).train()
    torch.nn.init.normal_(model.backbone.classifier.weight, std=0.05)
    data = DataConfig(str(shared / "data" / "cub10" / "CUB_200_2011"), image_size=96, batch_size=20)
    gains = {"exact": 0.0, "finite_difference": 0.0}
    for batch in itertools.chain.from_iterable(
        itertools.islice(data.training_loader(), 5) for _ in range(3)
    ):
        image, label = batch["image"], batch["label"]
        with attack_mode(model, "batch"):
            start = PGD(2 / 255).start(image)
            support = ART()._support(input_gradient(class_score(model, label), start))
            score = ART()._attack_score(model, label, support)
            for curvature in gains:
                art = ART(attack_curvature=curvature)
                attacked = art.attack(art._attack_score(model, label, support), image, start)
                gains[curvature] += (score(attacked) - score(start)).sum().item()
    assert gains["exact"] > 0
    assert gains["finite_difference"] > 0.98 * gains["exact"], gains
