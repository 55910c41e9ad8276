"""Smooth activations, for differentiation through an input gradient.

A ReLU network has no second derivative. ART (Singh et al., ECCV 2020, arXiv 1911.13073) therefore
replaces ReLU by softplus in every pass that is differentiated twice, on the same weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robust_training.autograd.batch_norm import attribute_set
from robust_training.autograd.held_activations import IN_PLACE
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
        kwargs = dict(kwargs or {})
        if func not in _SMOOTH_FORMS:
            return func(*args, **kwargs)
        input, *settings = args or (kwargs.pop("input"),)
        if not (kwargs.pop("inplace", False) or func in IN_PLACE):
            return _SMOOTH_FORMS[func](self.beta, input, *settings, **kwargs)
        # softplus keeps its input for the backward pass, so an input that is overwritten is copied
        return input.copy_(_SMOOTH_FORMS[func](self.beta, input.clone(), *settings, **kwargs))


def _relu(beta: float, input: Tensor) -> Tensor:
    return F.softplus(input, beta)


def _hardtanh(beta: float, input: Tensor, min_val: float = -1, max_val: float = 1) -> Tensor:
    return ramp(input, beta, min_val, max_val)


def _relu6(beta: float, input: Tensor) -> Tensor:
    return ramp(input, beta, 0, 6)


def _leaky_relu(beta: float, input: Tensor, negative_slope: float = 0.01) -> Tensor:
    return negative_slope * input + (1 - negative_slope) * F.softplus(input, beta)


def _hardsigmoid(beta: float, input: Tensor) -> Tensor:
    return _relu6(beta, input + 3) / 6


def _hardswish(beta: float, input: Tensor) -> Tensor:
    return input * _relu6(beta, input + 3) / 6


_SMOOTH_FORMS: dict[Callable, Callable[..., Tensor]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu, F.relu_, torch.relu_, Tensor.relu_), _relu),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _leaky_relu),
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _hardtanh),
    F.relu6: _relu6,
    F.hardsigmoid: _hardsigmoid,
    F.hardswish: _hardswish,
}
