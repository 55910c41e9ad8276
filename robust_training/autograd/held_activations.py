"""Keeps the decisions of layers when a computation is repeated with a displaced image.

A decision is the pixel that max pooling takes, the sign of a ReLU's input, or the level to which a
number is rounded. Exact derivatives treat decisions as constants. But a displacement changes some
of them. This causes a jump. Divided by the displacement, it can be larger than the result: on a
trained ReLU network the weight gradient was not even similar to the exact gradient. Flat
image regions have many pixels of equal value, and rounding jumps by a whole level. All rounding is
treated as straight-through, x + (round(x) - x).detach(), because only such rounding can be trained.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Line = tuple[Tensor, Tensor | float]  # slope and offset for each number of the input


class RecordActivations(TorchFunctionMode):
    """Adds to `records` the pixel of each max-pooling window, the rounding amount of each number
    and, with `holds_lines`, the line of each number in a piecewise linear activation."""

    def __init__(self, records: list[Tensor | Line], holds_lines: bool) -> None:
        super().__init__()
        self.records = records
        self.holds_lines = holds_lines

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _MAX_POOLING and not kwargs.get("return_indices"):
            output, record = F.max_pool2d_with_indices(*args, **kwargs)
        elif self.holds_lines and func in _LINES:
            record = _LINES[func](args[0].detach(), *args[1:], **kwargs)
            output = func(*args, **kwargs)
        elif func in _ROUNDING:
            output = func(*args, **kwargs)
            record = (output - args[0]).detach()
        else:
            return func(*args, **kwargs)
        self.records.append(record)
        return output


class HoldActivations(TorchFunctionMode):
    """Uses the recorded pixels, lines and rounding amounts."""

    def __init__(self, records: list[Tensor | Line], holds_lines: bool) -> None:
        super().__init__()
        self.records = iter(records)
        self.holds_lines = holds_lines

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _MAX_POOLING and not kwargs.get("return_indices"):
            pixels = next(self.records)
            return args[0].flatten(2).gather(2, pixels.flatten(2)).view(pixels.shape)
        if self.holds_lines and func in _LINES:
            slope, offset = next(self.records)
            line = args[0] * slope + offset
            line = args[0] * line if func in _TIMES_INPUT else line
            return args[0].copy_(line) if func in IN_PLACE else line
        if func in _ROUNDING:
            return (args[0] + next(self.records)).detach()  # rounding has no derivative
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
IN_PLACE = (F.relu_, torch.relu_, Tensor.relu_, F.leaky_relu_, F.hardtanh_)
