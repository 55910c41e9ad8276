"""Gradients of each objective, in one or several processes."""

import torch
from lightning_fabric import Fabric
from torch import Tensor

from robust_training.autograd.curvature import FiniteDifference
from robust_training.models.classifier import Classifier
from robust_training.models.creating import create_model
from robust_training.objectives import (
    AAT,
    ART,
    TRADES,
    AdvAAT,
    AdversarialTraining,
    EnhancedRegularizers,
    IGNorm,
    IGSumNorm,
    InputGradientPenalty,
    MarginalDensity,
    Objective,
    Part,
    Standard,
    Sum,
)
from robust_training.training.step import Batch, Step
from tests.helpers.attacks import PatternAttack

ATTACK = PatternAttack(eps=8 / 255, step_size=4 / 255, steps=2)
OBJECTIVES: dict[str, Objective] = {
    "Standard": Standard(),
    "AdversarialTraining": AdversarialTraining(attack=ATTACK),
    "TRADES": TRADES(attack=ATTACK),
    "ART": ART(attack=ATTACK),
    "ART signed": ART(attack=ATTACK, form="signed"),
    "ART first-order": ART(
        attack=ATTACK, curvature=FiniteDifference(), attack_curvature="finite_difference"
    ),
    "IGNorm": IGNorm(attack=ATTACK, steps=2, attack_steps=1),
    "IGSumNorm": IGSumNorm(attack=ATTACK, steps=2, attack_steps=1),
    "AAT": AAT(attack=ATTACK),
    "AdvAAT": AdvAAT(attack=ATTACK),
    "EnhancedRegularizers": EnhancedRegularizers(attack=ATTACK, steps=2, attack_steps=1),
    "MarginalDensity": MarginalDensity(),
    "MarginalDensity taylor": MarginalDensity(form="taylor"),
    "InputGradientPenalty": InputGradientPenalty(),
    "Sum": Sum((Part(Standard()), Part(ART(attack=ATTACK), 0.5), Part(MarginalDensity()))),
}


class Each(Objective):
    """The n-th of `OBJECTIVES` after n epochs."""

    def at(self, epoch: float) -> Objective:
        return list(OBJECTIVES.values())[int(epoch)]

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        raise AssertionError("a step asks for the objective of its epoch")


def gradients(fabric: Fabric) -> dict[str, list[Tensor]]:
    """The gradients of a float64 network without batch statistics, on the images of eight that
    belong to this process."""
    torch.manual_seed(0)
    model = create_model("test_vit", 3, image_size=32)
    torch.nn.init.normal_(model.backbone.get_classifier().weight)
    image, label = torch.rand(8, 3, 32, 32), torch.arange(8) % 3
    own = slice(fabric.global_rank, None, fabric.world_size)
    step = fabric.setup(Step(model, Each()))
    found = {}
    for epoch, name in enumerate(OBJECTIVES):
        terms = step(Batch(image[own].double(), label[own]), epoch)
        fabric.backward(sum(terms.values()))
        found[name] = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        step.zero_grad()
    return found
