"""The gradient of a classifier's highest logit as a graph of plain operators.

`torch.export` refuses a module that calls `autograd.grad`. So the backward pass is traced first,
and the exported model computes both passes without automatic differentiation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from robust_training.attribution.gradients import input_gradient
from robust_training.models.classifier import Classifier
from robust_training.private_api import FakeTensorMode, enable_python_dispatcher

aten = torch.ops.aten
BothPasses = Callable[[Tensor, list[Tensor]], tuple[Tensor, Tensor]]


class TracedGradient(nn.Module):
    """Images (N,3,S,S) in [0,1] -> logits (N,C) and the gradient (N,3,S,S) of the highest logit.

    Args:
        model: A classifier in evaluation mode on the CPU; its weights are shared. S is its image
            size, and N may be any number.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.count = len(state)
        for index, tensor in enumerate(state.values()):
            self.register_buffer(f"weight{index}", tensor.detach())

        def both_passes(image: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
            logits = image

            def highest(image: Tensor) -> Tensor:
                nonlocal logits
                settled = dict(zip(state, weights, strict=True))
                logits = torch.func.functional_call(model, settled, (image,))
                return logits.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1)

            gradient = input_gradient(highest, image)
            return logits.detach(), gradient

        self.passes = _trace(both_passes, model.image_size, self._weights())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.passes(image, self._weights())

    def _weights(self) -> list[Tensor]:
        return [self.get_buffer(f"weight{index}") for index in range(self.count)]


def _trace(both_passes: BothPasses, side: int, weights: Sequence[Tensor]) -> fx.GraphModule:
    """Trace both passes for any number of images; all other sizes are constants of the graph."""
    table = {
        **torch.export.default_decompositions(),
        aten.convolution_backward.default: _convolution_backward,
        aten.avg_pool2d_backward.default: _avg_pool2d_backward,
    }
    fake = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    free = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * 3)
    image = fake.from_tensor(torch.zeros(2, 3, side, side), symbolic_context=free)
    fakes = [fake.from_tensor(tensor, static_shapes=True) for tensor in weights]
    # The fused attention kernel of the CPU puts a wrong gradient into the graph, without an error.
    # Without the Python dispatcher, padding would make the number of images a constant.
    with sdpa_kernel(SDPBackend.MATH), fake, enable_python_dispatcher(), _PlainGlobalPooling():
        return make_fx(both_passes, decomposition_table=table)(image, fakes)


class _PlainGlobalPooling(TorchFunctionMode):
    """Computes pooling to 1 x 1 as a mean: ONNX cannot express the strides of PyTorch's result."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is F.adaptive_avg_pool2d and args[1] in (1, (1, 1), [1, 1]):
            return args[0].mean((-2, -1), keepdim=True)
        return func(*args, **(kwargs or {}))


def _convolution_backward(
    gradient: Tensor,
    image: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor, None, None]:
    """Compute the input gradient as the transposed convolution that ends at the input's size."""
    if transposed or output_mask != [True, False, False]:
        return NotImplemented
    left_over = [
        size - ((out - 1) * step - 2 * pad + wide * (reach - 1) + 1)
        for size, out, reach, step, pad, wide in zip(
            image.shape[2:],
            gradient.shape[2:],
            weight.shape[2:],
            stride,
            padding,
            dilation,
            strict=True,
        )
    ]
    back = aten.convolution.default(
        gradient, weight, None, stride, padding, dilation, True, left_over, groups
    )
    return back, None, None


def _avg_pool2d_backward(
    gradient: Tensor,
    image: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Distribute each output's gradient over its window, by a transposed convolution with ones."""
    height, width = image.shape[-2:]
    channels = image.shape[1]
    kernel, stride, padding = (_pair(sizes) for sizes in (kernel, stride or kernel, padding))
    rows, columns = (
        _window_sizes(*axis, count_include_pad)
        for axis in zip(image.shape[-2:], gradient.shape[-2:], kernel, stride, padding, strict=True)
    )
    counts = torch.tensor(
        [[divisor or row * column for column in columns] for row in rows], dtype=gradient.dtype
    )
    spread = aten.convolution.default(
        gradient / counts,
        gradient.new_ones(channels, 1, *kernel),
        None,
        stride,
        [0, 0],
        [1, 1],
        True,
        [0, 0],
        channels,
    )
    top, left = padding
    missing = [max(0, left + width - spread.shape[-1]), max(0, top + height - spread.shape[-2])]
    spread = F.pad(spread, (0, missing[0], 0, missing[1]))
    return spread[..., top : top + height, left : left + width]


def _window_sizes(
    size: int, outputs: int, kernel: int, stride: int, padding: int, count_include_pad: bool
) -> list[int]:
    """Return the number of pixels by which an average pooling divides, for outputs of one axis."""
    sizes = []
    for start in range(-padding, outputs * stride - padding, stride):
        end = min(start + kernel, size + padding)
        sizes.append(end - start if count_include_pad else min(end, size) - max(start, 0))
    return sizes


def _pair(sizes: list[int]) -> list[int]:
    return [*sizes] * 2 if len(sizes) == 1 else [*sizes]
