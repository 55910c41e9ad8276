"""Softplus and the smooth ramp, with derivatives that take few passes and little memory.

Each function runs in the precision of its input, autocast or not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_backward = torch.ops.aten.softplus_backward
_THRESHOLD = 20.0  # where PyTorch's softplus turns linear


def softplus(input: Tensor, beta: float = 1, threshold: float = _THRESHOLD) -> Tensor:
    """`torch.nn.functional.softplus`, differentiable twice in a third of PyTorch's passes."""
    if threshold != _THRESHOLD:
        return F.softplus(input, beta, threshold)
    with torch.autocast(input.device.type, enabled=False):
        return _Softplus.apply(input, beta)


def lean_softplus(input: Tensor, beta: float = 1, threshold: float = _THRESHOLD) -> Tensor:
    """The same, differentiable once, from the output alone.

    A layer with weights keeps its input, which is this output: so it comes for free, where PyTorch
    would keep the input as well. The backward pass takes twice as long.
    """
    if threshold != _THRESHOLD:
        return F.softplus(input, beta, threshold)
    with torch.autocast(input.device.type, enabled=False):
        return _LeanSoftplus.apply(input, beta)


def ramp(input: Tensor, beta: float, low: float, high: float) -> Tensor:
    """low + softplus(input - low) - softplus(input - high), by one softplus where that is exact.

    The ramp is symmetric about its middle, and the far softplus is nothing where PyTorch takes the
    near one for linear.
    """
    if beta * (high - low) / 2 < _THRESHOLD:
        return low + softplus(input - low, beta) - softplus(input - high, beta)
    with torch.autocast(input.device.type, enabled=False):
        return _Ramp.apply(input, beta, (low + high) / 2, (high - low) / 2)


class _Softplus(Function):
    @staticmethod
    def forward(ctx, input: Tensor, beta: float) -> Tensor:
        output = F.softplus(input, beta)
        ctx.save_for_backward(input, output)
        ctx.beta = beta
        return output

    @staticmethod
    def backward(ctx, outgoing: Tensor):
        input, output = ctx.saved_tensors
        return _Slope.apply(outgoing, output, input, ctx.beta, None), None


class _LeanSoftplus(Function):
    @staticmethod
    def forward(ctx, input: Tensor, beta: float) -> Tensor:
        output = F.softplus(input, beta)
        ctx.save_for_backward(output)
        ctx.beta = beta
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, outgoing: Tensor):
        (output,) = ctx.saved_tensors
        # The slope is 1 - exp(-beta output); the clamp avoids underflow, which is slow.
        rest = output.clamp(max=_THRESHOLD / ctx.beta).mul_(-ctx.beta).exp_()
        return torch.addcmul(outgoing, outgoing, rest, value=-1, out=rest), None


class _Ramp(Function):
    @staticmethod
    def forward(ctx, input: Tensor, beta: float, middle: float, half: float) -> Tensor:
        side = input - middle
        beyond = side.abs().sub_(half)  # either end
        output = F.softplus(beyond, -beta).add_(half).copysign_(side).add_(middle)
        ctx.save_for_backward(beyond, output)
        ctx.beta, ctx.middle = beta, middle
        return output

    @staticmethod
    def backward(ctx, outgoing: Tensor):
        beyond, output = ctx.saved_tensors
        return _Slope.apply(outgoing, output, beyond, -ctx.beta, ctx.middle), None, None, None


class _Slope(Function):
    """outgoing * sigmoid(beta * at), the slope of both activations.

    Its own derivative goes through their output, d slope / d output = beta (1 - slope), with the
    sign of the side of a ramp's middle.
    """

    @staticmethod
    def forward(ctx, outgoing, output, at, beta: float, middle: float | None) -> Tensor:
        ctx.save_for_backward(outgoing, output, at)
        ctx.beta, ctx.middle = beta, middle
        return _backward(outgoing, at, beta, _THRESHOLD)

    @staticmethod
    @once_differentiable
    def backward(ctx, incoming: Tensor):
        outgoing, output, at = ctx.saved_tensors
        to_output = (at * -ctx.beta).sigmoid_().mul_(ctx.beta)
        if ctx.middle is not None:
            to_output.mul_((output - ctx.middle).sign_())
        to_output.mul_(outgoing).mul_(incoming)
        to_outgoing = _backward(incoming, at, ctx.beta, _THRESHOLD)
        return to_outgoing, to_output, None, None, None
