import pytest
import torch

from robust_training.autograd.held_activations import _LINES, HoldActivations, RecordActivations


@pytest.mark.parametrize("function", [*_LINES], ids=lambda function: function.__name__)
def test_recorded_lines_equal_the_function(function):
    """At the recorded inputs, a line has the function's values and derivatives."""
    torch.manual_seed(0)
    records = []
    leaf = (4 * torch.randn(1000, dtype=torch.float64)).requires_grad_()
    plain = function(leaf.clone())
    (derivative,) = torch.autograd.grad(plain.sum(), leaf)
    with RecordActivations(records, True):
        torch.testing.assert_close(function(leaf.clone()), plain)
    with HoldActivations(records, True):
        held = function(leaf.clone())
    torch.testing.assert_close(held, plain)
    torch.testing.assert_close(torch.autograd.grad(held.sum(), leaf)[0], derivative)
