"""The forms of softplus, compared with PyTorch's, and the kernels' rounding."""

import pytest
import torch
import torch.nn.functional as F

from robust_training.autograd import softplus_kernels
from robust_training.autograd.softplus import once_differentiable_softplus, ramp


@pytest.mark.parametrize("keep_output", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("beta", [1.0, 50.0])
def test_softplus(keep_output, dtype, beta):
    points = torch.linspace(-30, 30, 4001).to(dtype)
    results = []
    for function in (
        lambda x: once_differentiable_softplus(x, beta, keep_output=keep_output),
        lambda x: F.softplus(x, beta),
    ):
        leaf = points.clone().requires_grad_()
        output = function(leaf)
        (gradient,) = torch.autograd.grad(output.sum(), leaf)
        results.append((output, gradient))
    rounding = {torch.float32: 1e-6, torch.float64: 1e-8, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(*results, rtol=rounding, atol=rounding)


def test_another_threshold_equals_pytorch():
    points = torch.linspace(-3, 3, 50)
    actual = once_differentiable_softplus(points, 1.0, 1.0, keep_output=True)
    torch.testing.assert_close(actual, F.softplus(points, 1.0, 1.0))


@pytest.mark.parametrize("beta", [0.5, 1.0, 5.0, 50.0, 100.0])
def test_the_kernel_rounds_as_well_as_pytorch(beta):
    points = torch.linspace(-3, 3, 200_001)
    exact = F.softplus(points.double(), beta, threshold=1e9)
    error = (softplus_kernels.softplus(points, beta) - exact).abs().max().item()
    assert error < max(3e-9 / beta, 2.4e-7 * exact.max().item())


def layouts():
    images = torch.randn(3, 5, 7, 9, generator=torch.Generator().manual_seed(0)) * 3 + 3
    yield "contiguous", images
    yield "channels last", images.to(memory_format=torch.channels_last)
    yield "a slice", images[:, :, ::2]
    yield "expanded", images[:1].expand(3, -1, -1, -1)
    yield "empty", images[:0]
    yield "one number", torch.tensor(0.5)
    yield "more than a chunk", torch.linspace(-3, 9, 40_000)


@pytest.mark.parametrize(("layout", "images"), layouts())
def test_every_layout(layout, images):
    soft = once_differentiable_softplus(images, 50.0, keep_output=False)
    torch.testing.assert_close(soft, F.softplus(images, 50.0), rtol=1e-6, atol=1e-7)
    both = F.softplus(images, 50.0) - F.softplus(images - 6, 50.0)
    torch.testing.assert_close(ramp(images, 50.0, 0, 6), both, rtol=1e-6, atol=1e-6)


def test_a_ramp_in_half_precision_is_accurate_near_its_lower_end():
    points = torch.linspace(-0.05, 0.05, 101, dtype=torch.bfloat16)
    expected = F.softplus(points.double(), 50.0)
    torch.testing.assert_close(ramp(points, 50.0, 0, 6).double(), expected, rtol=0.02, atol=1e-3)


def test_nan_stays_nan():
    points = torch.tensor([float("nan"), float("inf"), float("-inf"), 1.0])
    soft = once_differentiable_softplus(points, 50.0, keep_output=True)
    assert soft.isnan().tolist() == [True, False, False, False]
    assert soft[1:].tolist() == pytest.approx([float("inf"), 0.0, 1.0], abs=1e-9)
    smooth = ramp(points, 50.0, 0, 6)
    assert smooth.isnan().tolist() == [True, False, False, False]
    assert smooth[1:].tolist() == pytest.approx([6.0, 0.0, 1.0], abs=1e-6)
