"""Softplus and the smooth ramp in float32 on a CPU, in one vectorised pass each.

PyTorch's softplus takes as long as five ordinary elementwise passes. A smooth ReLU6 made of
PyTorch's operations takes twice as long: a third of the time of a MobileNet's forward pass.
"""

from collections.abc import Callable

import numba
import numpy as np
import torch
from torch import Tensor

_F = np.float32


def fits(input: Tensor) -> bool:
    """Whether `softplus` and `ramp` take this tensor."""
    return (
        input.device.type == "cpu"
        and input.dtype == torch.float32
        and (
            input.is_contiguous()
            or (input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last))
        )
        and not torch.compiler.is_compiling()
    )


def softplus(input: Tensor, beta: float) -> Tensor:
    """Compute log(1 + exp(beta * input)) / beta.

    The error is at most 2 float32 roundings of the result or of 1/beta.
    """
    output = torch.empty_like(input)
    _run(_softplus, input, output, beta)
    return output


def softplus_backward(outgoing: Tensor, output: Tensor, beta: float) -> Tensor:
    """Compute outgoing * (1 - exp(-beta * output)), for tensors of one layout."""
    result = torch.empty_like(output)
    _run(_softplus_backward, outgoing, output, result, beta)
    return result


def ramp(input: Tensor, beta: float, middle: float, half: float) -> tuple[Tensor, Tensor]:
    """Compute middle +- (half - softplus(half - |input - middle|)) and |input - middle| - half."""
    output, beyond = torch.empty_like(input), torch.empty_like(input)
    _run(_ramp, input, output, beyond, beta, middle, half)
    return output, beyond


def _run(kernel: Callable[..., None], *arguments: Tensor | float) -> None:
    """Run a kernel with as many threads as PyTorch: several processes may share the cores."""
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    if torch.get_num_threads() != threads:
        # numba's first launch sets the thread count of OpenMP, which PyTorch shares, to all cores
        torch.set_num_threads(threads)
    kernel(*(_flat(a) if isinstance(a, Tensor) else _F(a) for a in arguments))


def _flat(tensor: Tensor) -> np.ndarray:
    """Return the values in the order of memory."""
    return tensor.detach().as_strided((tensor.numel(),), (1,)).numpy()


@numba.njit(inline="always")
def _exp(x):
    """Compute exp(x) for x <= 0; below -20 the result is exp(-20) = 2e-9.

    It is 2^k exp(r) with |r| <= ln 2 / 2 and the polynomial of Cephes.
    """
    x = max(x, _F(-20))
    k = np.floor(x * _F(1.44269504) + _F(0.5))
    r = x - k * _F(0.693359375) + k * _F(2.12194440e-4)
    p = _F(1.9875691500e-4)
    p = p * r + _F(1.3981999507e-3)
    p = p * r + _F(8.3334519073e-3)
    p = p * r + _F(4.1665795894e-2)
    p = p * r + _F(1.6666665459e-1)
    p = p * r + _F(5.0000001201e-1)
    power = np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (p * r * r + r + _F(1)) * power


@numba.njit(inline="always")
def _log_one_plus_exp(x):
    """Compute log(1 + exp(x)) for x <= 0 by the series of 2 artanh(z), z = e / (e + 2) <= 1/3."""
    e = _exp(x)
    z = e / (e + _F(2))
    z2 = z * z
    q = _F(2 / 13)
    q = q * z2 + _F(2 / 11)
    q = q * z2 + _F(2 / 9)
    q = q * z2 + _F(2 / 7)
    q = q * z2 + _F(2 / 5)
    q = q * z2 + _F(2 / 3)
    q = q * z2 + _F(2)
    return z * q


_kernel = numba.njit(
    parallel=True, cache=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy"
)


@_kernel
def _softplus(input, output, beta):
    for i in numba.prange(input.size):
        x = input[i]
        output[i] = max(x, _F(0)) + _log_one_plus_exp(-abs(x) * beta) / beta


@_kernel
def _softplus_backward(outgoing, output, result, beta):
    for i in numba.prange(output.size):
        result[i] = outgoing[i] * (_F(1) - _exp(-output[i] * beta))


@_kernel
def _ramp(input, output, beyond, beta, middle, half):
    for i in numba.prange(input.size):
        side = input[i] - middle
        x = half - abs(side)
        beyond[i] = -x
        soft = max(x, _F(0)) + _log_one_plus_exp(-abs(x) * beta) / beta
        output[i] = middle + np.copysign(half - soft, side)
