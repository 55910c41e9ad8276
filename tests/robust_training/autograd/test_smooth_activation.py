import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust_training.autograd.smooth_activation import smooth


def softplus(x, beta=50.0):
    return F.softplus(x, beta)


EXPECTED = {
    "relu": softplus,
    "relu6": lambda x: softplus(x) - softplus(x - 6),
    "leaky": lambda x: 0.2 * x + 0.8 * softplus(x),
    "hardsigmoid": lambda x: (softplus(x + 3) - softplus(x - 3)) / 6,
    "hardswish": lambda x: x * (softplus(x + 3) - softplus(x - 3)) / 6,
}
CALLS = [
    ("relu", nn.ReLU()),
    ("relu", nn.ReLU(inplace=True)),
    ("relu", F.relu),
    ("relu", lambda x: F.relu(x, inplace=True)),
    ("relu", torch.relu),
    ("relu", torch.relu_),
    ("relu", lambda x: x.relu()),
    ("relu", lambda x: x.relu_()),
    ("relu6", nn.ReLU6()),
    ("relu6", nn.ReLU6(inplace=True)),
    ("relu6", F.relu6),
    ("leaky", nn.LeakyReLU(0.2)),
    ("leaky", nn.LeakyReLU(0.2, inplace=True)),
    ("leaky", lambda x: F.leaky_relu(x, 0.2)),
    ("hardsigmoid", nn.Hardsigmoid()),
    ("hardsigmoid", nn.Hardsigmoid(inplace=True)),
    ("hardswish", nn.Hardswish()),
    ("hardswish", nn.Hardswish(inplace=True)),
    ("hardswish", F.hardswish),
]


@pytest.mark.parametrize(("name", "activation"), CALLS)
def test_every_form_becomes_smooth(name, activation):
    points = torch.linspace(-8, 8, 201, dtype=torch.float64)
    plain = activation(points.clone())
    leaf = points.clone().requires_grad_()
    model = activation if isinstance(activation, nn.Module) else nn.Identity()
    with smooth(model):
        result = activation(leaf * 1)
    torch.testing.assert_close(result, EXPECTED[name](points))
    (gradient,) = torch.autograd.grad(result.sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), leaf)
    assert second.abs().max() > 0.5  # a second derivative near the kinks
    torch.testing.assert_close(activation(points.clone()), plain)  # and back to normal


@pytest.mark.parametrize("call", [torch.relu_, lambda x: F.relu(x, inplace=True)])
def test_operations_in_place_overwrite(call):
    values = torch.tensor([-1.0, 2.0])
    with smooth(nn.Identity()):
        call(values)
    torch.testing.assert_close(values, softplus(torch.tensor([-1.0, 2.0])))


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Sigmoid()])
def test_smooth_activations_are_not_replaced(activation):
    points = torch.linspace(-3, 3, 11)
    with smooth(activation):
        torch.testing.assert_close(activation(points), activation(points))


def test_beta_is_pytorchs_and_inplace_flags_are_restored(tiny):
    with smooth(tiny, 1.0):
        torch.testing.assert_close(torch.relu(torch.zeros(1)), torch.tensor([0.6931471805599453]))
        assert not tiny.backbone.act.inplace
    assert tiny.backbone.act.inplace
    with pytest.raises(ValueError, match="beta"), smooth(tiny, 0.0):
        pass
