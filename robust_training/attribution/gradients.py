"""Scores of a classifier and their attributions: what in the image a score depends on.

A Score maps images (N,3,H,W) in [0,1] to one number per image (N,). An attribution differentiates a
score and has the image's shape. All of them can be differentiated again, which training needs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from robust_training.attribution.scores import single
from robust_training.autograd.batch_norm import running_statistics_kept
from robust_training.autograd.curvature import (
    Curvature,
    FiniteDifference,
    Recomputed,
    Score,
    Scores,
    first_order_gradients,
    gradients_of,
    recomputed,
)
from robust_training.autograd.double_backward import EfficientDoubleBackward

# images (N,3,H,W) -> the gradients of several scores there, each (N,3,H,W)
Gradients = Callable[[Tensor], tuple[Tensor, ...]]


def input_gradients(
    scores: Scores, image: Tensor, *, create_graph: bool = False, curvature: Curvature = "exact"
) -> tuple[Tensor, ...]:
    """The gradients of several scores from one forward pass; `input_gradient` says the rest."""
    if isinstance(curvature, Recomputed):
        again = partial(_gradients, scores, curvature.curvature)
        return recomputed(again, image) if create_graph else again(image, False)
    if curvature not in ("exact", "finite_difference") and not isinstance(
        curvature, FiniteDifference
    ):
        raise ValueError(
            f'curvature must be "exact", "finite_difference" or a FiniteDifference, '
            f"not {curvature!r}"
        )
    if create_graph and curvature != "exact":
        method = curvature if isinstance(curvature, FiniteDifference) else FiniteDifference()
        return first_order_gradients(scores, image, method)
    with torch.enable_grad(), _twice(create_graph):
        leaf = image if create_graph and image.requires_grad else image.detach().requires_grad_()
        return gradients_of(scores(leaf), leaf, create_graph=create_graph)[0]


def _gradients(
    scores: Scores, curvature: Curvature, image: Tensor, create_graph: bool
) -> tuple[Tensor, ...]:
    return input_gradients(scores, image, create_graph=create_graph, curvature=curvature)


@contextmanager
def _twice(create_graph: bool) -> Iterator[None]:
    """Layers that can be differentiated again, and cheaply.

    Fused attention kernels have no second derivative; PyTorch's plain one does.
    """
    if not create_graph:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH), EfficientDoubleBackward():
        yield


def input_gradient(
    score: Score, image: Tensor, *, create_graph: bool = False, curvature: Curvature = "exact"
) -> Tensor:
    """d score / d image.

    Args:
        score: Maps images (N,3,H,W) to one number each, (N,).
        image: (N,3,H,W) in [0,1].
        create_graph: Whether the result will be differentiated again.
        curvature: How it will be: "exact" (the graph of the backward pass), "finite_difference"
            (first-order passes alone), or a FiniteDifference with its step.

    Returns:
        (N,3,H,W), signed.

    Raises:
        ValueError: the score ignores the image, or is not one number per image.
    """
    (gradient,) = input_gradients(
        single(score), image, create_graph=create_graph, curvature=curvature
    )
    return gradient


def input_x_gradient(
    score: Score, image: Tensor, *, create_graph: bool = False, curvature: Curvature = "exact"
) -> Tensor:
    """Pixel times its gradient, from black (Shrikumar et al., 2016). Shapes (N,3,H,W)."""
    return image * input_gradient(score, image, create_graph=create_graph, curvature=curvature)


def integrated_gradients(
    score: Score,
    image: Tensor,
    baseline: Tensor | None = None,
    *,
    steps: int = 50,
    create_graph: bool = False,
    curvature: Curvature = "exact",
) -> Tensor:
    """Integrated gradients (Sundararajan et al., 2017) from `baseline` (black) to `image`.

    (image - baseline) * mean over k = 1..steps of the gradient at baseline + k/steps (image -
    baseline): the right Riemann sum of RAR's and ART's code. Shapes (N,3,H,W).
    """
    baseline = torch.zeros_like(image) if baseline is None else baseline
    gradients = partial(
        input_gradients, single(score), create_graph=create_graph, curvature=curvature
    )
    (total,) = path_integrals(gradients, baseline, image, steps=steps)
    return total


def path_integrals(
    gradients: Gradients, start: Tensor, end: Tensor, *, steps: int
) -> tuple[Tensor, ...]:
    """Integrated gradients (N,3,H,W) of several scores, from one forward pass at each point.

    BatchNorm's running statistics are those of images, not of points between an image and black, so
    they stay as they are.

    Args:
        gradients: Called once for each point of the path, from `end` backwards: scores that choose
            classes at the first images they see choose them at the end of the path.
        start, end: (N,3,H,W).
    """
    if steps < 1:
        raise ValueError(f"integrated gradients need at least 1 step, not {steps}")
    path = end - start
    totals: tuple[Tensor, ...] = ()
    with running_statistics_kept():
        for step in range(steps, 0, -1):
            found = gradients(start + step / steps * path)
            totals = tuple(map(torch.add, totals, found)) if totals else found
    return tuple(path * total / steps for total in totals)


def smoothgrad(
    score: Score,
    image: Tensor,
    *,
    samples: int = 16,
    noise: float = 0.1,
    create_graph: bool = False,
    curvature: Curvature = "exact",
) -> Tensor:
    """Mean input gradient under Gaussian pixel noise (Smilkov et al., 2017). Shapes (N,3,H,W).

    Args:
        noise: Standard deviation in pixel units of [0,1], drawn from PyTorch's global generator.
    """
    if samples < 1:
        raise ValueError(f"smoothgrad needs at least 1 sample, not {samples}")
    total = torch.zeros_like(image)
    for _ in range(samples):
        noisy = image + noise * torch.randn_like(image)
        total = total + input_gradient(score, noisy, create_graph=create_graph, curvature=curvature)
    return total / samples
