"""Compiled networks: the same gradients, and nothing that cannot be compiled silently."""

import shutil

import pytest
import torch

from robust_training.attacks.pgd import PGD
from robust_training.models.classifier import create_model
from robust_training.objectives import ART, AdversarialTraining, Standard
from robust_training.training.compiled import compile_backbone
from robust_training.training.step import Batch, Step
from tests.conftest import cosine


@pytest.mark.parametrize(
    ("network", "what"),
    [("test_resnet", "batch_norm"), ("test_vit2", None), ("test_convnext", None)],
)
def test_networks_that_need_function_modes_are_refused(network, what, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    model = create_model(network, 3, image_size=32)
    if what is None:
        compile_backbone(model)
        assert model(torch.rand(1, 3, 32, 32)).shape == (1, 3)
    else:
        with pytest.raises(ValueError, match=f"cannot be compiled.*{what}"):
            compile_backbone(model)


def test_dropout_and_relu_are_refused(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    for layer, name in ((torch.nn.ReLU(), "relu"), (torch.nn.Dropout(0.1), "dropout")):
        model = create_model("test_vit", 3, image_size=32)
        model.backbone.fc_norm = layer
        with pytest.raises(ValueError, match=f"it has a {name}"):
            compile_backbone(model)


def test_exact_curvature_is_refused(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    model = create_model("test_vit", 3, image_size=32)
    compile_backbone(model)
    batch = Batch(torch.rand(4, 3, 32, 32), torch.arange(4) % 3)
    with pytest.raises(ValueError, match="set curvature and attack_curvature"):
        Step(model, ART())(batch)
    with pytest.raises(ValueError, match="set curvature and attack_curvature"):
        Step(model, ART(attack_curvature="finite_difference"))(batch)
    first = ART(curvature="finite_difference", attack_curvature="finite_difference")
    assert Step(model, first)(batch)["attribution"].isfinite()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles for a CPU with g++")
def test_a_compiled_network_has_the_gradients_of_the_plain_one():
    """Attack and weights, on several steps, without compiling again after the first ones."""
    attack = PGD(4 / 255, 2 / 255, 2, random_start=False)
    first = ART(attack=attack, curvature="finite_difference", attack_curvature="finite_difference")
    batch = Batch(torch.rand(4, 3, 32, 32), torch.arange(4) % 3)

    def gradients(objective, model):
        torch.manual_seed(0)
        loss = sum(objective(model.train(), batch.image, batch.label).values())
        return torch.autograd.grad(loss, list(model.parameters()))

    torch.manual_seed(0)
    model = create_model("test_vit", 3, image_size=32)
    torch.nn.init.normal_(model.backbone.get_classifier().weight)
    objectives = {"Standard": Standard(), "PGD": AdversarialTraining(attack), "ART": first}
    plain = {name: gradients(objective, model) for name, objective in objectives.items()}
    compile_backbone(model)
    for _ in range(2):
        for name, objective in objectives.items():
            least = 0.99 if name == "ART" else 1 - 1e-6
            assert cosine(gradients(objective, model), plain[name]) > least
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for _ in range(3):
        gradients(first, model)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
