"""Attributions of a score: its input gradient, integrated gradients and SmoothGrad.

An attribution differentiates a score (see scores.py) and has the shape of the image. All of them
can be differentiated again, as training needs. `explanation.py` offers them as settings.
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

# images (N,3,H,W) -> the gradients of several scores at these images, each (N,3,H,W)
Gradients = Callable[[Tensor], tuple[Tensor, ...]]

# The defaults of the functions below and of the classes in explanation.py.
STEPS = 10  # points of integrated gradients
SAMPLES = 8  # noisy copies of SmoothGrad
NOISE = 0.1  # standard deviation of SmoothGrad, in pixel units of [0,1]


def input_gradients(
    scores: Scores, image: Tensor, *, create_graph: bool = False, curvature: Curvature = "exact"
) -> tuple[Tensor, ...]:
    """Return the gradients of several scores from one forward pass; see `input_gradient`."""
    if isinstance(curvature, Recomputed):
        inner = curvature.curvature

        def again(point: Tensor, create_graph: bool) -> tuple[Tensor, ...]:
            return input_gradients(scores, point, create_graph=create_graph, curvature=inner)

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
    with torch.enable_grad(), _twice_differentiable(create_graph):
        leaf = image if create_graph and image.requires_grad else image.detach().requires_grad_()
        return gradients_of(scores(leaf), leaf, create_graph=create_graph)


@contextmanager
def _twice_differentiable(create_graph: bool) -> Iterator[None]:
    """With `create_graph`, use layers whose second derivative exists and is fast.

    Fused attention kernels have no second derivative; PyTorch's plain attention has one.
    """
    if not create_graph:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH), EfficientDoubleBackward():
        yield


def input_gradient(
    score: Score, image: Tensor, *, create_graph: bool = False, curvature: Curvature = "exact"
) -> Tensor:
    """Return d score / d image.

    Args:
        score: Images (N,3,H,W) -> one number each, (N,).
        image: (N,3,H,W) in [0,1].
        create_graph: Whether the result will be differentiated again.
        curvature: The way it will be differentiated: "exact" (the graph of the backward pass),
            "finite_difference" (first-order passes alone), or a FiniteDifference with its step.

    Returns:
        (N,3,H,W), signed.

    Raises:
        ValueError: the score does not depend on the image, or is not one number per image.
    """
    scores = single(score)
    return input_gradients(scores, image, create_graph=create_graph, curvature=curvature)[0]


def input_x_gradient(
    score: Score, image: Tensor, *, create_graph: bool = False, curvature: Curvature = "exact"
) -> Tensor:
    """Return pixel times gradient, from black (Shrikumar et al., 2016). Shapes (N,3,H,W)."""
    return image * input_gradient(score, image, create_graph=create_graph, curvature=curvature)


def integrated_gradients(
    score: Score,
    image: Tensor,
    baseline: Tensor | None = None,
    *,
    steps: int = STEPS,
    create_graph: bool = False,
    curvature: Curvature = "exact",
) -> Tensor:
    """Return integrated gradients (Sundararajan et al., 2017) from `baseline` to `image`.

    They are (image - baseline) times the mean, over k = 1..steps, of the gradient at
    baseline + k/steps (image - baseline): the right Riemann sum of RAR's and ART's code.

    Args:
        baseline: (N,3,H,W); None is black.
        steps: Points of the sum; each costs one gradient. More points make the sum over pixels
            closer to the change of the score.
    """
    baseline = torch.zeros_like(image) if baseline is None else baseline
    scores = single(score)
    gradients = partial(input_gradients, scores, create_graph=create_graph, curvature=curvature)
    return path_integrals(gradients, baseline, image, steps=steps)[0]


def path_integrals(
    gradients: Gradients, start: Tensor, end: Tensor, *, steps: int
) -> tuple[Tensor, ...]:
    """Return integrated gradients (N,3,H,W) of several scores, with one forward pass per point.

    BatchNorm's running statistics do not change: they describe images, and points between an image
    and black are none.

    Args:
        gradients: Called once for each point of the path, from `end` backwards. So scores that
            choose classes at their first images choose them at the end of the path.
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
    samples: int = SAMPLES,
    noise: float = NOISE,
    create_graph: bool = False,
    curvature: Curvature = "exact",
) -> Tensor:
    """Return the mean input gradient under Gaussian pixel noise (Smilkov et al., 2017).

    The noise is fixed: it is the same for every image and in every call, so that an image always
    has the same map. Shapes (N,3,H,W).

    Args:
        samples: Number of noisy copies; each costs one gradient.
        noise: Standard deviation in pixel units of [0,1].
    """
    scores = single(score)
    gradients = partial(input_gradients, scores, create_graph=create_graph, curvature=curvature)
    return noisy_means(gradients, image, samples=samples, noise=noise)[0]


def noisy_means(
    gradients: Gradients, image: Tensor, *, samples: int, noise: float
) -> tuple[Tensor, ...]:
    """Return SmoothGrad (N,3,H,W) of several scores, with one forward pass per noisy copy."""
    if samples < 1:
        raise ValueError(f"smoothgrad needs at least 1 sample, not {samples}")
    # a generator of its own: the map of an image does not depend on other images of the batch
    generator = torch.Generator().manual_seed(0)
    shape = (1, *image.shape[1:])
    totals: tuple[Tensor, ...] = ()
    for _ in range(samples):
        drawn = torch.randn(shape, generator=generator).to(image)
        found = gradients(image + noise * drawn)
        totals = tuple(map(torch.add, totals, found)) if totals else found
    return tuple(total / samples for total in totals)
