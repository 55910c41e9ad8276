"""Choices that layers make, held where a displaced image repeats a computation.

Exact curvature holds them all: the derivative of max pooling is that of the pixel it took, of a
ReLU that of the side of the kink it was on, and straight-through rounding, x + (round(x) -
x).detach(), adds a constant. A displacement changes some of them, and the jump, divided by the
displacement, is as large as what is sought or larger: on a trained ReLU network the first-order
weight gradient had nothing in common with the exact one. Flat image regions are full of tied
pixels, and a number that moves to the next level jumps by a whole one. All rounding is taken for
straight-through, the only kind that a network is trained through.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Line = tuple[Tensor, Tensor | float]  # slope and offset of each number


class Choices(TorchFunctionMode):
    """Notes which pixel each max-pooling window takes, on which line each number of a piecewise
    linear activation is, and how far each number is rounded."""

    def __init__(self, noted: list[Tensor | Line], holds_lines: bool) -> None:
        super().__init__()
        self.noted = noted
        self.holds_lines = holds_lines

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _MAX_POOLING and not kwargs.get("return_indices"):
            output, choice = F.max_pool2d_with_indices(*args, **kwargs)
        elif self.holds_lines and func in _LINES:
            choice = _LINES[func](args[0].detach(), *args[1:], **kwargs)
            output = func(*args, **kwargs)
        elif func in _ROUNDING:
            output = func(*args, **kwargs)
            choice = (output - args[0]).detach()
        else:
            return func(*args, **kwargs)
        self.noted.append(choice)
        return output


class RepeatedChoices(TorchFunctionMode):
    """Takes the noted pixels, stays on the noted lines and rounds by the noted amounts."""

    def __init__(self, noted: list[Tensor | Line], holds_lines: bool) -> None:
        super().__init__()
        self.noted = iter(noted)
        self.holds_lines = holds_lines

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _MAX_POOLING and not kwargs.get("return_indices"):
            pixels = next(self.noted)
            return args[0].flatten(2).gather(2, pixels.flatten(2)).view(pixels.shape)
        if self.holds_lines and func in _LINES:
            slope, offset = next(self.noted)
            line = args[0] * slope + offset
            line = args[0] * line if func in _TIMES_INPUT else line
            return args[0].copy_(line) if func in _IN_PLACE else line
        if func in _ROUNDING:
            return (args[0] + next(self.noted)).detach()  # rounding alone has no derivative
        return func(*args, **kwargs)


def _relu(input: Tensor, inplace: bool = False) -> Line:
    return input > 0, 0.0


def _leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Line:
    return torch.where(input > 0, 1.0, negative_slope).to(input.dtype), 0.0


def _hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Line:
    inside = (input > min_val) & (input < max_val)
    return inside, torch.where(inside, 0.0, input.clamp(min_val, max_val))


def _relu6(input: Tensor, inplace: bool = False) -> Line:
    return _hardtanh(input, 0.0, 6.0)


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Line:
    inside = (input > -3) & (input < 3)
    return inside / 6, torch.where(inside, 0.5, (input > 0).to(input.dtype))


_MAX_POOLING = (F.max_pool2d, torch.max_pool2d)
_ROUNDING = (torch.round, Tensor.round)
_LINES: dict[Callable, Callable[..., Line]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu, F.relu_, torch.relu_, Tensor.relu_), _relu),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _leaky_relu),
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _hardtanh),
    F.relu6: _relu6,
    F.hardsigmoid: _hardsigmoid,
    F.hardswish: _hardsigmoid,
}
_TIMES_INPUT = (F.hardswish,)
_IN_PLACE = (F.relu_, torch.relu_, Tensor.relu_, F.leaky_relu_, F.hardtanh_)
