"""Softplus and the smooth ramp, with derivatives that take few passes and little memory.

Each function runs in the precision of its input, also under autocast.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from robust_training.autograd import softplus_kernels

_backward = torch.ops.aten.softplus_backward
_THRESHOLD = 20.0  # PyTorch's softplus is linear above it


def softplus(input: Tensor, beta: float = 1, threshold: float = _THRESHOLD) -> Tensor:
    """Compute exactly the same numbers as `torch.nn.functional.softplus`.

    The second derivative needs half as many passes as PyTorch's second derivative.
    """
    if threshold != _THRESHOLD:
        return F.softplus(input, beta, threshold)
    with torch.autocast(input.device.type, enabled=False):
        return _Softplus.apply(input, beta)


def once_differentiable_softplus(
    input: Tensor, beta: float = 1, threshold: float = _THRESHOLD, *, keep_output: bool
) -> Tensor:
    """Compute softplus within rounding; it can be differentiated once.

    Args:
        keep_output: Keep the output for the backward pass instead of the input. If the next layer
            has weights, it keeps this output anyway, so this takes no further memory.
    """
    if threshold != _THRESHOLD:
        return F.softplus(input, beta, threshold)
    with torch.autocast(input.device.type, enabled=False):
        return _OnceDifferentiableSoftplus.apply(input, beta, keep_output)


def ramp(input: Tensor, beta: float, low: float, high: float) -> Tensor:
    """Compute low + softplus(input - low) - softplus(input - high), with one softplus if possible.

    The ramp is symmetric about its middle, so the softplus of the nearer end is sufficient if the
    ends are far apart (compared with 1/beta). Half precision always uses two: there, the distance
    from the middle is too coarse near the ends.
    """
    if input.dtype.itemsize < 4 or beta * (high - low) / 2 < _THRESHOLD:
        return low + softplus(input - low, beta) - softplus(input - high, beta)
    with torch.autocast(input.device.type, enabled=False):
        return _Ramp.apply(input, beta, (low + high) / 2, (high - low) / 2)


class _Softplus(Function):
    @staticmethod
    def forward(ctx, input: Tensor, beta: float) -> Tensor:
        ctx.save_for_backward(input)
        ctx.beta = beta
        return F.softplus(input, beta)

    @staticmethod
    def backward(ctx, outgoing: Tensor):
        (input,) = ctx.saved_tensors
        return _SoftplusDerivative.apply(outgoing, input, ctx.beta), None


class _OnceDifferentiableSoftplus(Function):
    @staticmethod
    def forward(ctx, input: Tensor, beta: float, keep_output: bool) -> Tensor:
        quick = softplus_kernels.fits(input)
        output = softplus_kernels.softplus(input, beta) if quick else F.softplus(input, beta)
        ctx.save_for_backward(output if keep_output else input)
        ctx.beta, ctx.keep_output = beta, keep_output
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, outgoing: Tensor):
        (kept,) = ctx.saved_tensors
        if not ctx.keep_output:
            return _backward(outgoing, kept, ctx.beta, _THRESHOLD), None, None
        if softplus_kernels.fits(kept) and outgoing.stride() == kept.stride():
            return softplus_kernels.softplus_backward(outgoing, kept, ctx.beta), None, None
        # The derivative is 1 - exp(-beta output); the clamp avoids underflow, which is slow.
        rest = kept.clamp(max=_THRESHOLD / ctx.beta).mul_(-ctx.beta).exp_()
        return torch.addcmul(outgoing, outgoing, rest, value=-1, out=rest), None, None


class _SoftplusDerivative(Function):
    """outgoing * sigmoid(beta * at)."""

    @staticmethod
    def forward(ctx, outgoing: Tensor, at: Tensor, beta: float) -> Tensor:
        ctx.save_for_backward(outgoing, at)
        ctx.beta = beta
        return _backward(outgoing, at, beta, _THRESHOLD)

    @staticmethod
    @once_differentiable
    def backward(ctx, incoming: Tensor):
        outgoing, at = ctx.saved_tensors
        sigmoid = (at * ctx.beta).sigmoid_()
        to_at = torch.ops.aten.sigmoid_backward(outgoing * incoming, sigmoid).mul_(ctx.beta)
        return sigmoid.mul_(incoming), to_at, None


class _Ramp(Function):
    @staticmethod
    def forward(ctx, input: Tensor, beta: float, middle: float, half: float) -> Tensor:
        if softplus_kernels.fits(input):
            output, beyond = softplus_kernels.ramp(input, beta, middle, half)
        else:
            side = input - middle
            beyond = side.abs().sub_(half)
            output = F.softplus(beyond, -beta).add_(half).copysign_(side).add_(middle)
        ctx.save_for_backward(beyond, output)
        ctx.beta, ctx.middle = beta, middle
        return output

    @staticmethod
    def backward(ctx, outgoing: Tensor):
        beyond, output = ctx.saved_tensors
        to_input = _RampDerivative.apply(outgoing, output, beyond, ctx.beta, ctx.middle)
        return to_input, None, None, None


class _RampDerivative(Function):
    """outgoing * sigmoid(-beta * beyond); `beyond` is the distance of the input past either end.

    Its own derivative is computed from the output, which the next layer keeps anyway:
    d derivative / d output = beta (1 - derivative), negative on the far side of the middle.
    """

    @staticmethod
    def forward(ctx, outgoing, output, beyond, beta: float, middle: float) -> Tensor:
        ctx.save_for_backward(outgoing, output, beyond)
        ctx.beta, ctx.middle = beta, middle
        return _backward(outgoing, beyond, -beta, _THRESHOLD)

    @staticmethod
    @once_differentiable
    def backward(ctx, incoming: Tensor):
        outgoing, output, beyond = ctx.saved_tensors
        to_output = (beyond * ctx.beta).sigmoid_().mul_(-ctx.beta)
        to_output.mul_((output - ctx.middle).sign_()).mul_(outgoing).mul_(incoming)
        to_outgoing = _backward(incoming, beyond, -ctx.beta, _THRESHOLD)
        return to_outgoing, to_output, None, None, None
