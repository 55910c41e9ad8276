import math
from dataclasses import replace

import pytest
import torch

from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import InputXGradient, IntegratedGradients
from robust_training.autograd import directional_derivative
from robust_training.autograd.curvature import FiniteDifference
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
    Standard,
    marginal_density,
)
from tests.conftest import cosine
from tests.helpers.attacks import constructible, fixed
from wsol.data.cub import CUB200
from wsol.data.transforms import eval_transform

METHODS = constructible()


@pytest.mark.parametrize("objective", METHODS)
def test_every_objective_has_the_papers_defaults_and_trains_all_weights(objective, tiny, batch):
    image, label = batch
    torch.manual_seed(0)
    terms = objective()(tiny, image, label)
    assert all(torch.isfinite(term) and term.ndim == 0 for term in terms.values())
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in tiny.parameters())
    assert all(parameter.requires_grad for parameter in tiny.parameters())
    assert all(module.training for module in tiny.modules())


@pytest.mark.parametrize(
    "objective",
    [
        Standard(),
        AdversarialTraining(),
        ART(beta=3.0),
        ART(beta=3.0, form="signed"),
        ART(beta=3.0, curvature="finite_difference"),
        ART(beta=3.0, attribution=IntegratedGradients(steps=3)),
        ART(beta=3.0, attribution=InputXGradient(), form="signed"),
        TRADES(),
        IGNorm(steps=3),
        IGNorm(steps=3, beta=3.0, reduction="sum", curvature="finite_difference"),
        IGSumNorm(weight=2.0, steps=3),
        AAT(beta=3.0),
        AAT(beta=None, attribution=IntegratedGradients(steps=2)),
        AdvAAT(beta=3.0, curvature="finite_difference"),
        EnhancedRegularizers(weight=3.0, steps=3),
        EnhancedRegularizers(weight=3.0, steps=2, beta=3.0, wacr=False, reduction="sum"),
        MarginalDensity(),
        MarginalDensity(density="conditional", beta=3.0, curvature="finite_difference"),
        MarginalDensity(density="joint"),
    ],
    ids=repr,
)
def test_weight_gradients_equal_finite_differences(objective, tiny, batch):
    """Central differences of the loss in float64, with constant attacked images."""
    image, label = batch
    torch.manual_seed(0)
    if hasattr(objective, "attack"):
        result = (image + 0.02 * torch.randn_like(image)).clamp(0, 1)
        objective = replace(objective, attack=fixed(result))

    def loss():
        return sum(objective(tiny, image, label).values())

    parameters = list(tiny.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    torch.manual_seed(1)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-6 * direction
            values.append(loss().item())
            with torch.no_grad():
                parameter -= sign * 1e-6 * direction
        expected = (values[0] - values[1]) / 2e-6
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("form", ["taylor", "softmax_taylor", "l2", "l1", "linf"])
def test_directional_derivatives_have_a_constant_direction(form, tiny, batch, monkeypatch):
    """Central differences of the loss in float64, with constant direction and softmax."""
    image, label = batch
    objective = (
        MarginalDensity(form=form)
        if "taylor" in form
        else InputGradientPenalty(weight=2.0, norm=form)
    )
    norm = "l2" if "taylor" in form else form
    held: list[torch.Tensor] = []
    steepest = directional_derivative.STEEPEST[norm]

    def once(rows):
        held.append(steepest(rows))
        return held[0]

    monkeypatch.setitem(directional_derivative.STEEPEST, norm, once)
    if form == "softmax_taylor":
        weights = tiny(image).detach().softmax(dim=1)
        monkeypatch.setattr(
            marginal_density, "_held_softmax", lambda: lambda logits: (weights * logits).sum(dim=1)
        )
    tiny.eval()
    parameters = list(tiny.parameters())
    gradients = torch.autograd.grad(sum(objective(tiny, image, label).values()), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -2):
            with torch.no_grad():
                parameter += sign * 1e-6 * direction
            values.append(sum(objective(tiny, image, label).values()).item())
        with torch.no_grad():
            parameter += 1e-6 * direction
        expected = (values[0] - values[1]) / 2e-6
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    "objective",
    [
        ART(weight=5.0, beta=3.0, attribution=IntegratedGradients(steps=2)),
        IGNorm(weight=5.0, steps=2, attack_steps=2, beta=3.0),
        IGSumNorm(weight=5.0, steps=2, attack_steps=2, beta=3.0),
        AAT(weight=5.0, beta=3.0),
        AAT(weight=5.0, beta=3.0, attribution=InputXGradient()),
        AdvAAT(weight=5.0, beta=3.0, attribution=IntegratedGradients(steps=2)),
        EnhancedRegularizers(weight=5.0, steps=2, attack_steps=2, beta=3.0),
        MarginalDensity(weight=5.0, beta=3.0),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_both_curvatures_agree(objective, tiny, batch):
    """The whole step with its attack, in float64."""
    image, label = batch
    found = []
    for curvature in ("exact", FiniteDifference()):
        objective = replace(objective, curvature=curvature)
        if hasattr(objective, "attack"):
            attack = PGD(eps=0.03, step_size=0.02, steps=2)
            objective = replace(objective, attack=attack, attack_curvature=curvature)
        torch.manual_seed(0)
        loss = sum(objective(tiny.eval(), image, label).values())
        found.append(torch.autograd.grad(loss, list(tiny.parameters())))
    assert cosine(*found) > 1 - 1e-6


@pytest.mark.parametrize(
    ("network", "training"), [("test_resnet", True), ("mobilenetv2_035", False)]
)
@pytest.mark.parametrize(
    "objective",
    [
        IGNorm(weight=1.0, steps=2),
        EnhancedRegularizers(weight=1.0, steps=2, cacr=False),
        MarginalDensity(weight=1.0),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_both_curvatures_agree_on_networks_with_kinks(objective, network, training):
    """float32, the network itself: a displacement crosses kinks, and each jump outweighs the
    derivative."""
    torch.manual_seed(0)
    model = create_model(network, 3, image_size=32).train(training)
    for parameter in model.backbone.get_classifier().parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    image, label = torch.rand(6, 3, 32, 32), torch.arange(6) % 3
    if hasattr(objective, "attack"):
        attacked = (image + 0.02 * torch.randn_like(image)).clamp(0, 1)
        objective = replace(objective, attack=fixed(attacked))
    found = []
    for curvature in ("exact", "finite_difference"):
        terms = replace(objective, curvature=curvature)(model, image, label)
        del terms["cross_entropy"]
        found.append(
            torch.autograd.grad(
                sum(terms.values()), list(model.parameters()), materialize_grads=True
            )
        )
    assert cosine(*found) > 0.98


@pytest.mark.parametrize("method", METHODS)
def test_a_new_head_of_zeros_trains_by_finite_differences(method):
    """At the first step, maps and their derivatives are zero."""
    fields = {field for field in ("curvature", "attack_curvature") if hasattr(method(), field)}
    objective = method(**dict.fromkeys(fields, "finite_difference"))
    if hasattr(objective, "steps"):
        objective = replace(objective, steps=2)
    torch.manual_seed(0)
    model = create_model("test_resnet", 3, image_size=32)
    terms = objective(model, torch.rand(3, 3, 32, 32), torch.arange(3))
    assert terms["cross_entropy"].item() == pytest.approx(math.log(3), rel=1e-5)
    sum(terms.values()).backward()
    assert model.backbone.fc.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("objective", "base"),
    [
        (TRADES(weight=0.0), Standard()),
        (IGNorm(weight=0.0, steps=2), Standard()),
        (AAT(weight=0.0), Standard()),
        (MarginalDensity(weight=0.0), Standard()),
        (MarginalDensity(weight=0.0, form="taylor"), Standard()),
        (InputGradientPenalty(weight=0.0), Standard()),
        (IGSumNorm(weight=0.0, steps=2), AdversarialTraining()),
        (AdvAAT(weight=0.0), AdversarialTraining()),
        (EnhancedRegularizers(weight=0.0, steps=2), AdversarialTraining()),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_without_weight_an_objective_equals_its_base(objective, base, tiny, batch):
    """Losses, gradients and attack."""
    image, label = batch
    found = []
    for each in (objective, base):
        if hasattr(each, "attack"):
            each = replace(each, attack=PGD(eps=0.03, step_size=0.02, steps=2))
        torch.manual_seed(0)
        loss = sum(each(tiny.eval(), image, label).values())
        found.append((loss, *torch.autograd.grad(loss, list(tiny.parameters()))))
    torch.testing.assert_close(*found)


def test_adversarial_training_without_radius_equals_standard(tiny, batch):
    image, label = batch
    objective = AdversarialTraining(attack=PGD(eps=0.0, steps=2))
    torch.testing.assert_close(objective(tiny.eval(), image, label), Standard()(tiny, image, label))


@pytest.mark.parametrize("curvature", ["exact", "finite_difference"])
def test_points_of_a_path_do_not_change_running_statistics(tiny, batch, curvature):
    """Only the cross-entropy's pass changes them: images between black and the image are not
    images of the data set."""
    image, label = batch
    attack = fixed((image + 0.01).clamp(0, 1))
    seen = tiny.backbone.bn.num_batches_tracked
    for objective in (
        IGNorm(attack=attack, steps=3, curvature=curvature),
        EnhancedRegularizers(attack=attack, steps=3, curvature=curvature),
    ):
        before = seen.item()
        sum(objective(tiny, image, label).values()).backward()
        assert seen.item() == before + 1
        assert tiny.backbone.bn.track_running_stats


@pytest.mark.ci
def test_terms_on_real_images(shared):
    """The first step of every method on birds, weights from ImageNet: finite, and every
    term has a gradient by the weights."""
    torch.manual_seed(0)
    weights = shared / "weights" / "mobilenetv2_100.imagenet.safetensors"
    model = create_model("mobilenetv2_100", 1000, weights=weights, image_size=64)
    birds = CUB200(shared / "data" / "cub10", "test", transform=eval_transform(64))
    image = torch.stack([birds[index]["image"] for index in (0, 30, 60, 90)])
    with torch.no_grad():
        label = model.eval()(image).argmax(dim=1)
    for method in METHODS:
        objective = method()
        if hasattr(objective, "attack"):
            objective = replace(objective, attack=replace(objective.attack, steps=1))
        if hasattr(objective, "steps"):
            objective = replace(objective, steps=2)
        norms = {}
        for name, term in objective(model.train(), image, label).items():
            # the classifier's bias has no part in an input gradient of a logit
            found = torch.autograd.grad(
                term, list(model.parameters()), retain_graph=True, materialize_grads=True
            )
            norms[name] = torch.stack([gradient.square().sum() for gradient in found]).sum().sqrt()
        assert all(norm.isfinite() for norm in norms.values()), method
        weak = {n for n, norm in norms.items() if norm < 1e-3 * norms["cross_entropy"]}
        assert not weak, (method, norms)
