"""Smooth activations, for differentiation through an input gradient.

A ReLU network has no second derivative. ART (Singh et al., ECCV 2020, arXiv 1911.13073) therefore
replaces ReLU by softplus in every pass that is differentiated twice, on the same weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robust_training.autograd.batch_norm import attribute_set
from robust_training.autograd.softplus import ramp


@contextmanager
def smooth(model: nn.Module, beta: float = 50.0) -> Iterator[None]:
    """Run `model` with smooth activations inside the `with`.

    Every ReLU becomes softplus with the given `beta` (PyTorch's softplus is exactly linear if
    beta * input > 20). Other piecewise linear activations (ReLU6 and hardtanh, leaky ReLU,
    hard-swish, hard-sigmoid) become the corresponding sums and products of softplus. Modules and
    functional calls are both replaced, in place or not; smooth activations (GELU, SiLU, ...) stay.

    Raises:
        ValueError: `beta` is not positive.
    """
    if not beta > 0:
        raise ValueError(f"beta of the smooth activation must be positive, not {beta}")
    # A module's result is always used, so the in-place form would only add a copy.
    inplace = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    with attribute_set(inplace, "inplace", False), SmoothActivations(beta):
        yield


Function = TypeVar("Function", bound=Callable)


def smoothly(function: Function, model: nn.Module, beta: float | None) -> Function:
    """Return `function` with smooth activations in `model`. If beta is None, return `function`."""
    if beta is None:
        return function

    @wraps(function)
    def smoothed(image: Tensor):
        with smooth(model, beta):
            return function(image)

    return smoothed


class SmoothActivations(TorchFunctionMode):
    """Replaces piecewise linear functions by their smooth forms inside the `with`."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _SMOOTH_FORMS:
            return _SMOOTH_FORMS[func](self.beta, *args, **kwargs)
        return func(*args, **kwargs)


def _apply(function: Callable[[Tensor], Tensor], input: Tensor, inplace: bool) -> Tensor:
    # softplus keeps its input for the backward pass, so an input that is overwritten is copied
    return input.copy_(function(input.clone())) if inplace else function(input)


def _relu(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return _apply(lambda x: F.softplus(x, beta), input, inplace)


def _hardtanh(
    beta: float, input: Tensor, min_val: float = -1, max_val: float = 1, inplace: bool = False
) -> Tensor:
    return _apply(lambda x: ramp(x, beta, min_val, max_val), input, inplace)


def _relu6(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return _hardtanh(beta, input, 0, 6, inplace)


def _leaky_relu(
    beta: float, input: Tensor, negative_slope: float = 0.01, inplace: bool = False
) -> Tensor:
    def leaky(x: Tensor) -> Tensor:
        return negative_slope * x + (1 - negative_slope) * F.softplus(x, beta)

    return _apply(leaky, input, inplace)


def _hardsigmoid(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return _apply(lambda x: ramp(x + 3, beta, 0, 6) / 6, input, inplace)


def _hardswish(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return _apply(lambda x: x * ramp(x + 3, beta, 0, 6) / 6, input, inplace)


_SMOOTH_FORMS = {
    F.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
    F.leaky_relu: _leaky_relu,
    F.hardsigmoid: _hardsigmoid,
    F.hardswish: _hardswish,
    F.relu_: partial(_relu, inplace=True),
    torch.relu_: partial(_relu, inplace=True),
    Tensor.relu_: partial(_relu, inplace=True),
    F.hardtanh_: partial(_hardtanh, inplace=True),
    F.leaky_relu_: partial(_leaky_relu, inplace=True),
}
