"""Finite-difference curvature, compared with exact curvature."""

import itertools
import math

import pytest
import torch
from torch import nn

from robust_training.attribution.gradients import input_gradient, input_gradients
from robust_training.attribution.scores import class_and_runner_up_scores, class_score
from robust_training.autograd.batch_norm import attribute_set, batch_norm
from robust_training.autograd.curvature import FiniteDifference
from robust_training.autograd.smooth_activation import smooth
from robust_training.models.classifier import Classifier
from robust_training.models.creating import create_model
from robust_training.models.log_gradient import LogGradient
from tests.conftest import cosine


def test_products_equal_exact_ones_in_float64(tiny, batch):
    """Derivatives of a function of the gradient with respect to the image and each parameter."""
    image, label = batch
    image.requires_grad_()
    score = class_score(tiny, label)

    def smooth_score(x):
        with smooth(tiny, 5.0):
            return score(x)

    def derivatives(curvature):
        gradient = input_gradient(smooth_score, image, create_graph=True, curvature=curvature)
        loss = (gradient.square().sum((1, 2, 3)) + gradient[:, 0].sum((1, 2))).log1p().sum()
        leaves = (image, *tiny.parameters())
        return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)

    first, exact = derivatives("finite_difference"), derivatives("exact")
    torch.testing.assert_close(first, exact, rtol=1e-5, atol=1e-6)


def test_merged_differences_are_right_on_average(tiny, batch):
    """Two scores have two relative signs. Their cross terms cancel."""
    image, label = batch
    image.requires_grad_()

    def derivatives(method):
        scores = class_and_runner_up_scores(tiny, label)

        def smooth_scores(x):
            with smooth(tiny, 5.0):
                return scores(x)

        first, second = input_gradients(smooth_scores, image, create_graph=True, curvature=method)
        loss = first.square().sum() + second[:, 0].exp().sum()
        leaves = (image, *tiny.parameters())
        found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        return torch.cat([tensor.flatten() for tensor in found])

    seen = {}
    for seed in range(12):
        torch.manual_seed(seed)
        found = derivatives(FiniteDifference(merged=True))
        seen.setdefault(round(found[0].item(), 4), found)
    assert len(seen) == 2
    torch.testing.assert_close(sum(seen.values()) / 2, derivatives("exact"), rtol=1e-4, atol=1e-5)


def test_one_sided_products_approach_exact_ones(tiny, batch):
    image, label = batch
    image.requires_grad_()
    tiny.requires_grad_(False)

    def score(x):
        with smooth(tiny, 5.0):
            return class_score(tiny, label)(x)

    def derivative(curvature):
        gradient = input_gradient(score, image, create_graph=True, curvature=curvature)
        return torch.autograd.grad(gradient.square().sum(), image)[0]

    exact = derivative("exact")
    error = [
        (derivative(FiniteDifference(step)) - exact).norm() / exact.norm() for step in (1e-2, 1e-3)
    ]
    assert error[1] < 1e-2
    assert error[1] < error[0] / 5  # first order in the step


def test_extra_passes_leave_no_trace():
    """Running statistics and the random generator end as after one pass. Dropout is repeated."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Softplus(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 25, 1),
    ).double()
    image = torch.rand(5, 3, 7, 7, dtype=torch.float64, requires_grad=True)

    def run(curvature):
        state = {k: v.clone() for k, v in net.state_dict().items()}
        torch.manual_seed(3)
        gradient = input_gradient(
            lambda x: net(x).squeeze(1), image, create_graph=True, curvature=curvature
        )
        weights = torch.autograd.grad(gradient.square().sum(), net[0].weight)[0]
        after = {k: v.clone() for k, v in net.state_dict().items()}
        net.load_state_dict(state)
        return weights, after, torch.rand(3)

    exact, first = run("exact"), run("finite_difference")
    torch.testing.assert_close(first[0], exact[0], rtol=1e-4, atol=1e-8)  # one-sided differences
    torch.testing.assert_close(first[1], exact[1], rtol=0, atol=0)
    torch.testing.assert_close(first[2], exact[2], rtol=0, atol=0)


def test_max_pooling_keeps_its_pixel_if_pixels_are_equal():
    """In a flat image all pixels of a window are equal. If the pixel changed, the difference would
    be 1/step too large."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.MaxPool2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 1)
    ).double()
    image = torch.full((2, 3, 8, 8), 0.7, dtype=torch.float64, requires_grad=True)

    def derivatives(curvature):
        gradient = input_gradient(
            lambda x: net(x).squeeze(1), image, create_graph=True, curvature=curvature
        )
        return torch.autograd.grad(gradient[:, :, ::2].square().sum(), (image, net[0].weight))

    for actual, expected in zip(
        derivatives("finite_difference"), derivatives("exact"), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


def test_rounding_stays_the_same():
    """A column of pixels halfway between two levels: each one that jumped would be 1/step off."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 1)
    )
    front = LogGradient(bits=3, limit=0.9)
    model = Classifier(net, log_gradient=front).double()
    image = 0.2 + 0.6 * torch.rand(2, 1, 8, 8, dtype=torch.float64).expand(2, 3, 8, 8).contiguous()
    image[..., 1] = (image[..., 0] + front.offset) * math.exp(0.15) - front.offset
    image.requires_grad_()

    def derivatives(curvature):
        gradient = input_gradient(
            lambda x: model(x).squeeze(1), image, create_graph=True, curvature=curvature
        )
        wanted = (image, net[0].weight, net[-1].weight)
        return torch.autograd.grad(gradient.square().sum(), wanted)

    exact, first = derivatives("exact"), derivatives("finite_difference")
    for a, b in zip(exact, first, strict=True):
        assert cosine([a], [b]) > 0.99999
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * a.abs().max().item())


def test_an_incoming_zero_needs_no_pass():
    calls = []

    def score(x):
        calls.append(1)
        return x.sin().sum((1, 2, 3))

    image = torch.rand(2, 3, 4, 4, requires_grad=True)
    gradient = input_gradient(score, image, create_graph=True, curvature="finite_difference")
    (gradient * 0).sum().backward()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("name", "training"),
    [
        *itertools.product(["resnet18", "mobilenetv2_100"], [True, False]),
        ("vit_tiny_patch16_224", False),  # has no BatchNorm
    ],
)
def test_agrees_with_exact_on_real_architectures(name, training):
    """float32, default step: cosine above .98 with batch, .99 with running statistics."""
    torch.manual_seed(0)
    model = create_model(name, 10, image_size=64)
    torch.nn.init.normal_(model.backbone.get_classifier().weight, std=0.05)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(6, 3, 64, 64, generator=generator)
    image[:, :, :16] = 1.0  # an overexposed sky
    with torch.no_grad():
        for _ in range(10):  # running statistics that fit
            model.train()(image)
    model.train(training)
    label = torch.arange(6)
    image.requires_grad_()

    def score(x):
        with smooth(model):
            return class_score(model, label)(x)

    def derivatives(curvature):
        gradient = input_gradient(score, image, create_graph=True, curvature=curvature)
        maps = gradient.abs().mean(dim=1).flatten(1)
        similarity = torch.cosine_similarity(maps, image.detach().mean(dim=1).flatten(1))
        return torch.autograd.grad(
            similarity.sum(),
            (image, *model.parameters()),
            allow_unused=True,
            materialize_grads=True,
        )

    exact, first = derivatives("exact"), derivatives("finite_difference")
    least = 0.98 if training else 0.99
    assert cosine(exact[:1], first[:1]) > least
    assert cosine(list(exact[1:]), list(first[1:])) > least


def test_modes_around_the_gradient_apply_to_its_derivative(tiny, batch):
    """Smooth activations and BatchNorm modes also apply if they ended before the backward pass."""
    image, label = batch
    image.requires_grad_()

    def derivatives(curvature):
        with smooth(tiny, 5.0), batch_norm(tiny, "running"):
            gradient = input_gradient(
                class_score(tiny, label), image, create_graph=True, curvature=curvature
            )
        loss = gradient.square().sum()
        return torch.autograd.grad(loss, (image, tiny.backbone.conv1.weight))

    for actual, expected in zip(
        derivatives("finite_difference"), derivatives("exact"), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-8)
    assert tiny.backbone.bn.training
    assert tiny.backbone.bn.track_running_stats


@pytest.mark.parametrize("training", [True, False])
def test_images_with_small_vectors_keep_their_precision_in_evaluation_mode(training):
    """float32, rows of v from 1 to 1e-4: in evaluation mode each image has its own step."""
    torch.manual_seed(0)
    model = create_model("resnet10t", 3, image_size=64)
    torch.nn.init.normal_(model.backbone.fc.weight)
    model.train(training).requires_grad_(False)
    image = torch.rand(4, 3, 64, 64, requires_grad=True)
    scale = torch.tensor([1, 1e-2, 1e-3, 1e-4])

    def derivative(curvature):
        with smooth(model):
            gradient = input_gradient(
                class_score(model, torch.tensor([0, 1, 2, 0])),
                image,
                create_graph=True,
                curvature=curvature,
            )
            loss = (scale * gradient.square().sum((1, 2, 3)).sqrt()).sum()
            return torch.autograd.grad(loss, image)[0]

    exact, first = derivative("exact"), derivative("finite_difference")
    rows = [cosine([a], [b]) for a, b in zip(exact, first, strict=True)]
    assert min(rows[:1] if training else rows) > 0.98


def test_differences_ignore_autocast():
    torch.manual_seed(0)
    model = create_model("resnet10t", 3, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    image, label = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])

    def weights(autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), smooth(model):
            gradient = input_gradient(
                class_score(model, label), image, create_graph=True, curvature="finite_difference"
            )
        return torch.autograd.grad(gradient.square().sum(), model.backbone.fc.weight)[0]

    torch.testing.assert_close(weights(True), weights(False))
    with pytest.raises(ValueError, match="float32 or float64"):
        input_gradient(
            class_score(model.bfloat16(), label),
            image.bfloat16(),
            create_graph=True,
            curvature="finite_difference",
        )


def test_differences_are_computed_without_tf32(tiny, batch):
    """TF32 rounds a displacement away, and PyTorch uses it for convolutions on GPUs by default."""
    image, label = batch
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    seen = []

    def score(x):
        seen.append([switch.allow_tf32 for switch in switches])
        return class_score(tiny, label)(x)

    with attribute_set(switches, "allow_tf32", True):
        gradient = input_gradient(score, image, create_graph=True, curvature="finite_difference")
        gradient.square().sum().backward()
        assert [switch.allow_tf32 for switch in switches] == [True, True]
    assert seen == [[False, False]] * 2  # the gradient, and the displaced one


def test_a_step_must_be_positive():
    with pytest.raises(ValueError, match="step of a finite difference"):
        FiniteDifference(0.0)
