"""The input gradient of a score (see scores.py), and its integral along a path.

Both have the shape of the image and can be differentiated again, as training needs.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial, reduce

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from robust_training.attribution.scores import single
from robust_training.autograd.batch_norm import running_statistics_kept
from robust_training.autograd.curvature import (
    Curvature,
    FiniteDifference,
    Recomputed,
    RecomputedGradients,
    Score,
    Scores,
    first_order_gradients,
    gradients_of,
)
from robust_training.autograd.double_backward import EfficientDoubleBackward

# images (N,3,H,W) -> the gradients of several scores at these images, each (N,3,H,W)
Gradients = Callable[[Tensor], tuple[Tensor, ...]]


def input_gradients(
    scores: Scores, image: Tensor, *, create_graph: bool = False, curvature: Curvature = "exact"
) -> tuple[Tensor, ...]:
    """Return the gradients of several scores from one forward pass; see `input_gradient`."""
    if isinstance(curvature, Recomputed):
        gradients = partial(input_gradients, scores, curvature=curvature.curvature)
        return RecomputedGradients.apply(image, gradients) if create_graph else gradients(image)
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
    with torch.enable_grad(), ExitStack() as stack:
        if create_graph:  # plain attention has a second derivative; fused kernels do not
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(EfficientDoubleBackward())
        leaf = image if create_graph and image.requires_grad else image.detach().requires_grad_()
        return gradients_of(scores(leaf), leaf, create_graph=create_graph)


def input_gradient(
    score: Score, image: Tensor, *, create_graph: bool = False, curvature: Curvature = "exact"
) -> Tensor:
    """Return d score / d image.

    Args:
        score: Images (N,3,H,W) -> one number each, (N,).
        image: (N,3,H,W) in [0,1].
        create_graph: Whether the result will be differentiated again.
        curvature: The way in which it will be differentiated: "exact" (the graph of the backward
            pass), "finite_difference" (first-order passes only), or a FiniteDifference with its
            step.

    Returns:
        (N,3,H,W), signed.

    Raises:
        ValueError: The score does not depend on the image, or is not one number per image.
    """
    scores = single(score)
    return input_gradients(scores, image, create_graph=create_graph, curvature=curvature)[0]


def path_integrals(
    gradients: Gradients, start: Tensor, end: Tensor, *, steps: int
) -> tuple[Tensor, ...]:
    """Return integrated gradients (N,3,H,W) of several scores, with one forward pass per point.

    BatchNorm's running statistics do not change, because points between an image and black are not
    images of the data set.

    Args:
        gradients: Called once for each point of the path, from `end` backwards. So a score that
            selects its classes at the first images selects them at the end of the path.
        start, end: (N,3,H,W).
    """
    if steps < 1:
        raise ValueError(f"integrated gradients need at least 1 step, not {steps}")
    path = end - start
    with running_statistics_kept():
        totals = sum_maps(gradients(start + k / steps * path) for k in range(steps, 0, -1))
    return tuple(path * total / steps for total in totals)


def sum_maps(points: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return the sum of each score's maps over all points, which are computed one by one."""
    return reduce(lambda total, maps: tuple(map(torch.add, total, maps)), points)
