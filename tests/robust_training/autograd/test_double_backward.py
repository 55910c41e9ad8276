"""Layers with cheap second derivatives, compared with PyTorch's layers in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust_training.attribution.scores import class_score
from robust_training.autograd import double_backward
from robust_training.autograd.double_backward import EfficientDoubleBackward
from robust_training.autograd.smooth_activation import smooth
from robust_training.autograd.softplus import ramp, softplus
from robust_training.models.creating import create_model


def derivatives(function, *tensors):
    """The output, its input gradient, and the gradients of a function of both."""
    generator = torch.Generator().manual_seed(1)
    leaves = [t.clone().requires_grad_() for t in tensors]
    output = function(*leaves)
    factor = torch.randn(output.shape, generator=generator, dtype=output.dtype).requires_grad_()
    (gradient,) = torch.autograd.grad((output * factor).sum(), leaves[0], create_graph=True)
    other = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
    loss = (gradient * other).sum() + 0.3 * gradient.square().sum() + output.pow(3).sum()
    return output, gradient, *torch.autograd.grad(loss, (*leaves, factor))


def assert_same(function, reference, *tensors, rtol=1e-10, atol=1e-10):
    actual, expected = derivatives(function, *tensors), derivatives(reference, *tensors)
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("weight", "bias", "geometry"),
    [
        ((8, 6, 3, 3), True, {"padding": 1}),
        ((8, 3, 3, 3), True, {"stride": 2, "padding": 1, "groups": 2}),
        ((6, 1, 3, 3), False, {"padding": (1, 2), "dilation": 2, "groups": 6}),
        ((5, 6, 1, 1), False, {"stride": (2, 1)}),
        ((4, 6, 3, 3), True, {"padding": "same"}),
    ],
)
def test_convolution(weight, bias, geometry):
    tensors = [random(4, 6, 9, 8), random(*weight, seed=1)]
    if bias:
        tensors.append(random(weight[0], seed=2))
    assert_same(
        lambda x, w, b=None: double_backward.conv2d(x, w, b, **geometry),
        lambda x, w, b=None: F.conv2d(x, w, b, **geometry),
        *tensors,
    )


@pytest.mark.parametrize("shape", [(4, 6, 5, 7), (8, 6)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape, training):
    tensors = 3 * random(*shape) + 2, random(6, seed=1).abs() + 0.5, random(6, seed=2)
    running = [(random(6, seed=3), random(6, seed=4).abs()) for _ in range(2)]

    def normalise(function, mean, variance):
        return lambda x, w, b: function(x, mean, variance, w, b, training, 0.1, 1e-5)

    assert_same(
        normalise(double_backward.batch_norm, *running[0]),
        normalise(F.batch_norm, *running[1]),
        *tensors,
    )
    torch.testing.assert_close(*running)


def test_one_value_per_channel_is_refused_as_in_pytorch():
    norm = nn.BatchNorm2d(3)
    with EfficientDoubleBackward(), pytest.raises(ValueError, match="more than 1 value"):
        norm(torch.rand(1, 3, 1, 1))


@pytest.mark.parametrize("beta", [1.0, 5.0, 50.0])
def test_softplus(beta):
    # at 20 / beta the derivative is 1 - 2e-9, and PyTorch's is 1 above
    points = 2 * random(3, 4, 5, 6)
    assert_same(lambda x: softplus(x, beta), lambda x: F.softplus(x, beta), points, atol=1e-6)


@pytest.mark.parametrize("beta", [1.0, 5.0, 50.0])
@pytest.mark.parametrize(("low", "high"), [(0, 6), (-1, 1)])
def test_ramp(beta, low, high):
    points = 4 * random(3, 4, 5, 6) + 2

    def two(x):
        return low + F.softplus(x - low, beta) - F.softplus(x - high, beta)

    assert_same(lambda x: ramp(x, beta, low, high), two, points, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto"])
def test_whole_networks(name):
    """Weight gradients of a function of the input gradient, every parameter, batch statistics."""
    torch.manual_seed(0)
    model = create_model(name, 3, image_size=32).double().train()
    nn.init.normal_(model.backbone.get_classifier().weight)
    image = random(4, 3, 32, 32).sigmoid().requires_grad_()
    score = class_score(model, torch.tensor([0, 1, 2, 0]))

    def weights():
        with smooth(model, 5.0):
            (gradient,) = torch.autograd.grad(score(image).sum(), image, create_graph=True)
        return torch.autograd.grad(
            gradient.square().sum().log(),
            (image, *model.parameters()),
            allow_unused=True,
            materialize_grads=True,
        )

    expected = weights()
    with EfficientDoubleBackward():
        actual = weights()
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-9)


def test_gradients_of_weights_are_not_computed_if_only_the_image_needs_one(monkeypatch):
    """The kernels compute only the image's gradient."""
    masks = []
    kernel = double_backward._convolution_backward

    def spy(*arguments):
        masks.append(arguments[-1])
        return kernel(*arguments)

    monkeypatch.setattr(double_backward, "_convolution_backward", spy)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3)).double()
    image = random(2, 3, 8, 8).requires_grad_()
    with EfficientDoubleBackward():
        (gradient,) = torch.autograd.grad(net(image).sum(), image, create_graph=True)
    assert masks == [[True, False, False]] * 2
    gradient.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net[0].parameters())


def test_a_third_derivative_is_refused():
    weight, bias = random(3, seed=1), random(3, seed=2)
    image = random(4, 3, 5, 5).requires_grad_()
    output = double_backward.batch_norm(image, None, None, weight, bias, True)
    (first,) = torch.autograd.grad(output.pow(3).sum(), image, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), image, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


def test_the_layers_follow_autocast():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Softplus())
    image = torch.rand(4, 3, 8, 8, requires_grad=True)
    results = []
    for mode in (EfficientDoubleBackward(), torch.enable_grad()):
        with torch.autocast("cpu", torch.bfloat16), mode:
            output = net(image)
        (gradient,) = torch.autograd.grad(output.square().sum(), image, create_graph=True)
        weights = torch.autograd.grad(gradient.square().sum(), net[0].weight)[0]
        results.append((output.float(), gradient, weights))
    for actual, expected in zip(*results, strict=True):
        assert torch.cosine_similarity(actual.flatten(), expected.flatten(), dim=0) > 0.99
