import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robust_training import slope as slopes
from robust_training.attack import PGD
from robust_training.choices import _LINES, Choices, RepeatedChoices
from robust_training.curvature import FiniteDifference
from robust_training.maps import InputXGradient, IntegratedGradients
from robust_training.model import Classifier, create_model
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
from robust_training.objectives.art import attribution_loss
from tests.attacks import constructible, fixed
from tests.conftest import cosine
from wsol.data.cub import CUB200
from wsol.data.transforms import eval_transform

METHODS = constructible()


@pytest.mark.parametrize("objective", METHODS)
def test_every_objective_has_the_papers_defaults_and_trains_everything(objective, tiny, batch):
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
    """Central differences of the loss in float64, the attacked images held."""
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
def test_weight_gradients_of_slopes_hold_their_direction(form, tiny, batch, monkeypatch):
    """Central differences of the loss in float64, with the direction and the softmax held."""
    image, label = batch
    objective = (
        MarginalDensity(form=form)
        if "taylor" in form
        else InputGradientPenalty(weight=2.0, norm=form)
    )
    norm = "l2" if "taylor" in form else form
    held: list[torch.Tensor] = []
    steepest = slopes._STEEPEST[norm]

    def once(rows):
        held.append(steepest(rows))
        return held[0]

    monkeypatch.setitem(slopes._STEEPEST, norm, once)
    if form == "softmax_taylor":
        weights = tiny(image).detach().softmax(dim=1)
        score = lambda logits: (weights * logits).sum(dim=1)  # noqa: E731
        monkeypatch.setattr(marginal_density, "_weights_held", lambda: score)
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
    """The whole step in float64, attack included."""
    image, label = batch
    found = []
    for curvature in ("exact", FiniteDifference(central=True)):
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


@pytest.mark.parametrize("function", [*_LINES], ids=lambda function: function.__name__)
def test_held_lines_are_those_of_the_function(function):
    """Replayed where it was recorded a line has the function's values and slopes."""
    torch.manual_seed(0)
    noted = []
    leaf = (4 * torch.randn(1000, dtype=torch.float64)).requires_grad_()
    plain = function(leaf.clone())
    (slope,) = torch.autograd.grad(plain.sum(), leaf)
    with Choices(noted, True):
        torch.testing.assert_close(function(leaf.clone()), plain)
    with RepeatedChoices(noted, True):
        held = function(leaf.clone())
    torch.testing.assert_close(held, plain)
    torch.testing.assert_close(torch.autograd.grad(held.sum(), leaf)[0], slope)


@pytest.mark.parametrize("method", METHODS)
def test_a_new_head_of_zeros_trains_by_finite_differences(method):
    """Maps are zero at the first step, and so is all that is known of their derivatives."""
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
def test_without_weight_an_objective_is_its_base(objective, base, tiny, batch):
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


def test_art_without_weight_or_attack_is_standard(tiny, batch):
    image, label = batch
    art = ART(weight=0.0, attack=PGD(eps=0.0, steps=0))
    terms = art(tiny.eval(), image, label)
    assert terms["attribution"].item() == 0
    torch.testing.assert_close(
        terms["cross_entropy"], Standard()(tiny, image, label)["cross_entropy"]
    )


def test_adversarial_training_without_radius_is_standard(tiny, batch):
    image, label = batch
    objective = AdversarialTraining(attack=PGD(eps=0.0, steps=2))
    torch.testing.assert_close(objective(tiny.eval(), image, label), Standard()(tiny, image, label))


def test_attribution_loss_by_hand():
    """One pair of twins in the plane, every cosine known, the worse candidate mined."""
    anchor = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    true = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # distances 0 and 1 - sqrt(.5): the worse counts
    runner_up = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])  # distances 1 and 2: the closer counts
    expected = math.log1p(math.exp((1 - math.sqrt(0.5)) - 1))
    assert attribution_loss(anchor, true, runner_up).item() == pytest.approx(expected, rel=1e-6)


def test_mining_never_mixes_images():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.rand(8, 5, generator=generator) for _ in range(3)]
    each = [attribution_loss(*(r[[i, i + 4]] for r in rows)) for i in range(4)]
    torch.testing.assert_close(attribution_loss(*rows), torch.stack(each).mean())


def test_a_linear_model_attributes_by_its_weights(batch):
    """Hand-computed ART on a linear classifier: its gradients are rows of its weight matrix."""
    image, label = batch
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(147, 3)).double()
    model = Classifier(net, (0.5,) * 3, (0.2,) * 3).double()
    attacked = (image + 0.01).clamp(0, 1)
    terms = ART(weight=2.0, attack=fixed(attacked))(model, image, label)
    weight = net[1].weight.view(3, 3, 7, 7).abs().mean(1).flatten(1)
    expected = 0.0
    for index in range(3):
        for source in (image, attacked):
            row = ((source[index] - 0.5) / 0.2).abs().mean(0).flatten()
            candidates = []
            for twin in (image, attacked):
                logits = model(twin[index : index + 1])[0].clone()
                logits[label[index]] = -torch.inf
                pair = weight[torch.stack([label[index], logits.argmax()])]
                candidates.append([1 - torch.cosine_similarity(row, v, dim=0) for v in pair])
            (p1, n1), (p2, n2) = candidates
            expected += 2.0 / 6 * torch.log1p(torch.exp(max(p1, p2) - min(n1, n2)))
    assert terms["attribution"].item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(model(attacked), label))


@pytest.mark.parametrize("mode", ["update", "batch", "running"])
def test_batch_norm_of_the_attack_is_a_choice(tiny, batch, mode):
    image, label = batch
    ART(attack_batch_norm=mode).perturb(tiny, image, label)
    # one pass for the support and three steps when running statistics follow
    assert tiny.backbone.bn.num_batches_tracked.item() == (4 if mode == "update" else 0)


@pytest.mark.parametrize("curvature", ["exact", "finite_difference"])
def test_points_of_a_path_leave_running_statistics_alone(tiny, batch, curvature):
    """Only the cross-entropy's pass counts: half-dark images are not what a network will see."""
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


def test_the_attack_moves_the_support_alone_and_raises_the_loss(tiny, batch):
    image, label = batch
    tiny.eval()
    art = ART(attack=PGD(eps=0.05, step_size=0.02, steps=5), top_k=10, beta=5.0)
    torch.manual_seed(0)
    start = art.attack.start(image)
    torch.manual_seed(0)
    attacked = art.perturb(tiny, image, label)

    def loss(images):
        terms = ART(attack=fixed(images), beta=5.0, weight=1.0)(tiny, images, label)
        return terms["attribution"].item()

    assert loss(attacked) > loss(start)


def test_a_new_head_of_zeros_does_not_explode():
    """All gradients are zero at the first step; a plain cosine would have a slope of 1e8 there."""
    torch.manual_seed(0)
    model = create_model("resnet10t", 4, image_size=32)
    image, label = torch.rand(4, 3, 32, 32), torch.arange(4)
    terms = ART()(model, image, label)
    assert terms["cross_entropy"].item() == pytest.approx(math.log(4), rel=1e-6)
    sum(terms.values()).backward()
    norm = sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None).sqrt()
    assert 0 < norm < 100


def test_terms_on_real_images(shared):
    """The first step of every method on birds, weights from ImageNet: finite, and none without a
    say in the weights."""
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
        shares = {}
        for name, term in objective(model.train(), image, label).items():
            # the classifier's bias has no part in an input gradient of a logit
            found = torch.autograd.grad(
                term, list(model.parameters()), retain_graph=True, materialize_grads=True
            )
            shares[name] = torch.stack([gradient.square().sum() for gradient in found]).sum().sqrt()
        assert all(share.isfinite() for share in shares.values()), method
        weak = {n for n, share in shares.items() if share < 1e-3 * shares["cross_entropy"]}
        assert not weak, (method, shares)


@pytest.mark.parametrize(
    ("objective", "arguments", "word"),
    [
        (ART, {"weight": -1.0}, "weight of ART"),
        (ART, {"beta": 0.0}, "beta of ART"),
        (ART, {"top_k": 0}, "top_k"),
        (ART, {"top_k": 1.5}, "top_k"),
        (ART, {"form": "both"}, "form"),
        (ART, {"attribution": "cam"}, "attribution of ART must be one that can be differentiated"),
        (AAT, {"attribution": None}, "attribution of AAT"),
        (AAT, {"attack": PGD(random_start=False)}, "attack.random_start of AAT"),
        (AAT, {"weight": float("nan")}, "weight of AAT"),
        (AdvAAT, {"attribution": None}, "attribution of AdvAAT"),
        (AdvAAT, {"attack": PGD(steps=0)}, "attack.steps of AdvAAT"),
        (TRADES, {"weight": -1.0}, "weight of TRADES"),
        (TRADES, {"attack": PGD(steps=0)}, "attack.steps of TRADES"),
        (TRADES, {"start_noise": 0.0}, "start_noise of TRADES"),
        (IGNorm, {"steps": 0}, "steps of IGNorm must be 1 or more"),
        (IGNorm, {"attack_steps": 0}, "attack_steps of IGNorm"),
        (IGNorm, {"attack": PGD(random_start=False)}, "attack.random_start of IGNorm"),
        (IGSumNorm, {"weight": -1.0}, "weight of IGSumNorm"),
        (IGSumNorm, {"attack": PGD(steps=0)}, "attack.steps of IGSumNorm"),
        (EnhancedRegularizers, {"cacr": False, "wacr": False}, "cacr or wacr"),
        (EnhancedRegularizers, {"steps": 0}, "steps of EnhancedRegularizers"),
        (MarginalDensity, {"density": "total"}, "density of MarginalDensity"),
        (MarginalDensity, {"form": "roughly"}, "form of MarginalDensity"),
        (MarginalDensity, {"density": "joint", "form": "softmax_taylor"}, "softmax_taylor"),
        (MarginalDensity, {"step": 0.0}, "step of MarginalDensity must be positive"),
        (InputGradientPenalty, {"norm": "l3"}, "norm of InputGradientPenalty"),
        (InputGradientPenalty, {"weight": -1.0}, "weight of InputGradientPenalty"),
    ],
)
def test_bad_settings_name_the_field(objective, arguments, word):
    with pytest.raises(ValueError, match=word):
        objective(**arguments)
