"""Layers that compute their second derivative with first-order kernels.

PyTorch differentiates the backward pass of a convolution by convolutions of an unsuitable shape,
one for each group. For batch normalisation and softplus it needs about twenty elementwise passes.
So the derivative of an input gradient takes several times as long as necessary. The second
derivatives here are the same numbers, computed with the kernels of ordinary forward and backward
passes.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from robust_training.autograd.softplus import softplus
from robust_training.private_api import is_gradient_wanted

_convolution_backward = torch.ops.aten.convolution_backward
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward


class EfficientDoubleBackward(TorchFunctionMode):
    """Use these layers for convolution, batch normalisation and softplus inside the `with`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _REPLACEMENTS.get(func, func)(*args, **(kwargs or {}))


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Compute `torch.nn.functional.conv2d` of (N,C,H,W)."""
    if isinstance(padding, str) or input.ndim != 4:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    device = input.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        input, weight = input.to(dtype), weight.to(dtype)
        bias = bias if bias is None else bias.to(dtype)
    geometry = (_pair(stride), _pair(padding), _pair(dilation), groups)
    with torch.autocast(device, enabled=False):
        return _Convolution.apply(*map(_inner, (input, weight, bias)), geometry)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute `torch.nn.functional.batch_norm`.

    With running statistics it is a scale and a shift, computed by PyTorch's own function.
    """
    if not training or weight is None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if input.numel() == input.shape[1]:  # the message of torch.nn.functional.batch_norm
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {input.shape}"
        )
    with torch.autocast(input.device.type, enabled=False):
        leading = map(_inner, (input, weight, bias))
        return _BatchNorm.apply(*leading, running_mean, running_var, momentum, eps)


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _inner(tensor: Tensor | None) -> Tensor | None:
    """Return the tensor itself, or a view of a leaf, because `_wanted` does not work for leaves."""
    if tensor is None or not tensor.is_leaf or not tensor.requires_grad:
        return tensor
    return tensor.view_as(tensor)


def _wanted(context: Any) -> list[bool]:
    """Return for each input of a Function whether the current backward pass needs its gradient.

    `needs_input_grad` is true for every input that requires a gradient, so also for the weights
    when only the image's gradient is computed.
    """
    return [node is not None and is_gradient_wanted(node) for node, _ in context.next_functions]


class _Convolution(Function):
    @staticmethod
    def forward(ctx, input: Tensor, weight: Tensor, bias: Tensor | None, geometry) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = geometry
        return torch.conv2d(input, weight, bias, *geometry)

    @staticmethod
    def backward(ctx, outgoing: Tensor):
        input, weight = ctx.saved_tensors
        to_input, to_weight, to_bias = [*_wanted(ctx), False][:3]  # only two without a bias
        if to_input and not to_weight and not to_bias:
            gradient = _ConvolutionInputGradient.apply(outgoing, weight, input, ctx.geometry)
            return gradient, None, None, None
        mask = [to_input, to_weight, to_bias]
        return *_conv_gradients(outgoing, input, weight, ctx.geometry, mask), None


class _ConvolutionInputGradient(Function):
    @staticmethod
    def forward(ctx, outgoing: Tensor, weight: Tensor, input: Tensor, geometry) -> Tensor:
        ctx.save_for_backward(outgoing, weight)
        ctx.geometry = geometry
        return _conv_gradients(outgoing, input, weight, geometry, [True, False, False])[0]

    @staticmethod
    def backward(ctx, incoming: Tensor):
        outgoing, weight = ctx.saved_tensors
        to_outgoing, to_weight, _ = _wanted(ctx)
        return (
            torch.conv2d(incoming, weight, None, *ctx.geometry) if to_outgoing else None,
            _conv_gradients(outgoing, incoming, weight, ctx.geometry, [False, True, False])[1]
            if to_weight
            else None,
            None,
            None,
        )


def _conv_gradients(outgoing: Tensor, input: Tensor, weight: Tensor, geometry, mask: list[bool]):
    *sizes, groups = geometry
    sizes = (*sizes, False, [0, 0], groups)  # not transposed, without output padding
    return _convolution_backward(outgoing, input, weight, [len(weight)], *sizes, mask)


class _BatchNorm(Function):
    @staticmethod
    def forward(ctx, input, weight, bias, running_mean, running_var, momentum, eps) -> Tensor:
        output, mean, inverse = torch.native_batch_norm(
            input, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(input, weight, mean, inverse)
        return output

    @staticmethod
    def backward(ctx, outgoing: Tensor):
        input, weight, mean, inverse = ctx.saved_tensors
        to_input, to_weight, to_bias = _wanted(ctx)[:3]
        mask = [to_input, to_weight, to_bias]
        if mask == [True, False, False]:
            gradients = (_BatchNormInputGradient.apply(outgoing, input, weight, mean, inverse),)
        else:
            gradients = _norm_gradients(outgoing, input, weight, mean, inverse, mask)
        return *gradients, *[None] * (7 - len(gradients))


class _BatchNormInputGradient(Function):
    """The input gradient of batch normalisation, and its derivatives.

    x^ is the normalised input, a the outgoing gradient and s = 1/std; means are over a channel. The
    input gradient is

        weight s (a - mean(a) - x^ mean(a x^)).

    It is a symmetric linear operator on a, so its product with an incoming b is the same operator
    on b. With A = mean(a x^) and B = mean(b x^), the product with its derivative by the input is

        -weight s^2 [x^ (cov(a, b) - 3 A B) + B (a - mean(a)) + A (b - mean(b))].
    """

    @staticmethod
    def forward(ctx, outgoing, input, weight, mean, inverse) -> Tensor:
        gradient, along, total = _norm_gradients(outgoing, input, weight, mean, inverse, [True] * 3)
        ctx.save_for_backward(outgoing, input, weight, mean, inverse, along, total)
        return gradient

    @staticmethod
    @once_differentiable
    def backward(ctx, incoming: Tensor):
        outgoing, input, weight, mean, inverse, along, total = ctx.saved_tensors
        products, along_b, total_b = _norm_gradients(
            incoming, input, weight, mean, inverse, [True] * 3
        )
        count = input.numel() / len(weight)
        a_mean, b_mean, a_along, b_along = (t / count for t in (total, total_b, along, along_b))
        spread = (outgoing * incoming).sum(dim=[0, *range(2, input.ndim)]) / count - a_mean * b_mean
        shared = a_along * b_along
        to_weight = count * inverse * (spread - shared)
        scale = -weight * inverse**2
        of_a, of_b, of_x = scale * b_along, scale * a_along, scale * inverse * (spread - 3 * shared)
        constant = -of_a * a_mean - of_b * b_mean
        shape = [1, -1, *[1] * (input.ndim - 2)]
        to_input = input - mean.view(shape)
        torch.addcmul(constant.view(shape), to_input, of_x.view(shape), out=to_input)
        to_input.addcmul_(outgoing, of_a.view(shape)).addcmul_(incoming, of_b.view(shape))
        return products, to_input, to_weight, None, None


def _norm_gradients(outgoing, input, weight, mean, inverse, mask: list[bool]):
    return _batch_norm_backward(outgoing, input, weight, None, None, mean, inverse, True, 0.0, mask)


_REPLACEMENTS = {
    F.conv2d: conv2d,
    torch.conv2d: conv2d,
    F.batch_norm: batch_norm,
    F.softplus: softplus,
}
