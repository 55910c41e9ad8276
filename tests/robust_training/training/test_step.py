import pytest
import torch
from lightning_fabric import Fabric

from robust_training.attacks.pgd import PGD
from robust_training.models.creating import create_model
from robust_training.objectives import ART, MarginalDensity
from robust_training.training.step import Balance, Batch, Step
from tests.robust_training.training.test_fit import train

CPU = Fabric(accelerator="cpu", devices=1)


def test_a_terms_gradient_becomes_the_fraction_of_the_cross_entropys():
    first, second = (torch.nn.Parameter(torch.tensor([value])) for value in (2.0, 5.0))
    balance = Balance(0.5, {})

    def terms(slope):
        return {
            "cross_entropy": 3 * first.sum() + 4 * second.sum(),  # its gradient has norm 5
            "attribution": slope * second.sum(),
            "constant": torch.tensor(7.0),
        }

    balance.measure(CPU, terms(0.1), [first, second])
    assert balance.factors() == {"attribution": pytest.approx(25.0)}  # 0.5 * 5 / 0.1
    balance.loss(terms(0.1)).backward()
    assert (first.grad.item(), second.grad.item()) == pytest.approx((3.0, 4.0 + 2.5))
    balance.measure(CPU, terms(0.3), [first, second])
    assert balance.norms["attribution"] == pytest.approx(0.9 * 0.1 + 0.1 * 0.3)  # running mean
    balance.measure(CPU, terms(float("nan")), [first, second])
    assert balance.norms["attribution"] == pytest.approx(0.12)


@pytest.mark.parametrize("curvature", ["exact", "finite_difference"])
@pytest.mark.parametrize("weight", [0.01, 100.0])
def test_arts_weight_cancels(curvature, weight):
    torch.manual_seed(0)
    model = create_model("test_resnet", 3, image_size=32).double()
    torch.nn.init.normal_(model.backbone.get_classifier().weight, std=0.1)
    art = ART(weight=weight, attack=PGD(0, 0, 0), curvature=curvature)
    batch = Batch(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 0]))
    terms, parameters = Step(model, art)(batch), list(model.parameters())
    balance = Balance(0.25, {})
    balance.measure(CPU, terms, parameters)
    loss = balance.factors()["attribution"] * terms["attribution"]
    norms = [
        torch.nn.utils.get_total_norm(
            [g for g in torch.autograd.grad(t, parameters, allow_unused=True) if g is not None]
        )
        for t in (loss, terms["cross_entropy"])
    ]
    assert norms[0] > 0
    assert norms[0].item() == pytest.approx(0.25 * norms[1].item(), rel=1e-3)


def test_balanced_training_resumes_and_logs_its_factor(tmp_path):
    density = MarginalDensity()
    settings = {"objective": density, "balance": 0.5, "batch": 4}
    whole, log = train(tmp_path / "whole", epochs=3, **settings)
    assert log[-1]["density_factor"] > 0
    train(tmp_path / "parts", epochs=1, **settings)
    parts, resumed = train(tmp_path / "parts", epochs=3, resume=True, **settings)
    assert resumed[-1]["density_factor"] == log[-1]["density_factor"]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], tensor), name


def test_balance_needs_a_further_term(tmp_path):
    with pytest.raises(ValueError, match="the terms are cross_entropy: remove balance"):
        train(tmp_path / "run", balance=1.0)
    with pytest.raises(ValueError, match="balance must be above 0, or None, not 0"):
        train(tmp_path / "run", balance=0.0)
