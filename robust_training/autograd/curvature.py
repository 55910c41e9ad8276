"""Two ways to differentiate an input gradient: exactly, and by finite differences.

Robust attribution objectives minimise functions of g = d score / d image. The gradient of their
weights needs products of an incoming vector v with dg/d(image, weights). `"exact"` builds the graph
of the backward pass. `"finite_difference"` takes the products from first-order passes alone,

    v . dg/d(image, weights) ~ d/d(image, weights) [ score(image + s v) - score(image) ] / s,

which needs no second-order kernel, and little more memory than an ordinary step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from robust_training.autograd.recompute import Recording

Score = Callable[[Tensor], Tensor]  # images (N,3,H,W) -> one number per image (N,)
Scores = Callable[[Tensor], tuple[Tensor, ...]]  # several scores from one forward pass


@dataclass(frozen=True)
class FiniteDifference:
    """First-order curvature, computed in the precision of the image and never under autocast.

    Each difference is taken between the gradients at a displaced image and those at the image.

    Attributes:
        step: L2 length of the displacement of an image in [0,1]. None takes 3e-4 in float32 and
            1e-7 in float64. Usually every image is displaced by its own length. All images are
            displaced by one common multiple of their v, with `step` as root mean square, if batch
            statistics couple the images (only then is it the difference of the whole batch) or if
            weights share one difference.
        merged: Take one difference of all scores together, each with a random sign. That halves
            the passes of two scores. It is right on average, but its cross terms are noise as large
            as the result: enough for weights over many steps, too noisy for an attack.
    """

    step: float | None = None
    merged: bool = False

    def __post_init__(self) -> None:
        if self.step is not None and not self.step > 0:
            raise ValueError(f"step of a finite difference must be positive, not {self.step}")

    def length(self, dtype: torch.dtype) -> float:
        """Return the length of the displacement for images of this type."""
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"finite-difference curvature needs images and weights in float32 or float64, not "
                f"{dtype}: use precision 32-true or bf16-mixed, or exact curvature"
            )
        if self.step is not None:
            return self.step
        return 3e-4 if dtype == torch.float32 else 1e-7

    def signs(self, scores: int) -> list[list[int]]:
        """Return a row of signs for each sum of scores whose difference is taken.

        Each score is displaced by itself, or all together with random signs.
        """
        if self.merged:
            return [[1 - 2 * int(flip) for flip in torch.randint(2, (scores,))]]
        return [[int(i == k) for k in range(scores)] for i in range(scores)]


@dataclass(frozen=True)
class Recomputed:
    """Another curvature, whose passes run again whenever they are needed.

    Only the images of each gradient stay in memory. It is for attacks: weights get no gradient.

    Attributes:
        curvature: "exact", "finite_difference" or a FiniteDifference.
    """

    curvature: Literal["exact", "finite_difference"] | FiniteDifference


Curvature = Literal["exact", "finite_difference"] | FiniteDifference | Recomputed


def recomputed(gradients: Callable[..., tuple[Tensor, ...]], image: Tensor) -> tuple[Tensor, ...]:
    """Return gradients(image, create_graph=False), which only the image can differentiate."""
    return _Recomputed.apply(image, gradients)


class _Recomputed(Function):
    @staticmethod
    def forward(ctx, image, gradients):
        ctx.save_for_backward(image)
        ctx.gradients = gradients
        return gradients(image)

    @staticmethod
    @once_differentiable
    def backward(ctx, *incoming):
        (image,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = image.detach().requires_grad_()
            gradients = ctx.gradients(leaf, create_graph=True)
            (found,) = torch.autograd.grad(gradients, leaf, incoming)
        return found, None


def gradients_of(
    values: Sequence[Tensor],
    image: Tensor,
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> tuple[Tensor, ...]:
    """Return d sum(value) / d image for each of `values`, one backward pass for each.

    Args:
        values: (N,) each, computed from `image` in one graph.
        create_graph, retain_graph: The arguments of `torch.autograd.grad`.
    """
    kept = create_graph or retain_graph
    return tuple(
        _differentiate(
            value.sum(),
            (image,),
            create_graph=create_graph,
            retain_graph=kept or number < len(values),
        )[0]
        for number, value in enumerate(_checked(values, image), start=1)
    )


def first_order_gradients(
    scores: Scores, image: Tensor, method: FiniteDifference
) -> tuple[Tensor, ...]:
    """Return the gradients (N,...) of each score at `image`, differentiable by differences."""
    method.length(image.dtype)
    recording = Recording(image.device)
    with torch.enable_grad(), recording:
        point = image.detach().requires_grad_()
        values = scores(point)
        parameters = _leaves(values, excluding=point)
        signs = method.signs(len(values))
        gradients, at_rest = _gradients_at_rest(values, point, signs, parameters)
    difference = _Difference(scores, method, signs, recording, gradients, at_rest)
    return _FirstOrder.apply(difference, image, *parameters)


def _gradients_at_rest(
    values: Sequence[Tensor],
    image: Tensor,
    signs: Sequence[Sequence[int]],
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """Return the gradients of `values` by the image, and of their signed sum by `parameters`.

    The signed sum adds all rows of `signs`. One backward pass for each value is enough for both:
    the last pass is that of the signed sum, by image and parameters together, and subtracting the
    other values' gradients leaves that of the last value.
    """
    if not parameters:
        return gradients_of(values, image), ()
    *others, _ = _checked(values, image)
    gradients = gradients_of(others, image, retain_graph=True)
    factors = [sum(column) for column in zip(*signs, strict=True)]
    total = sum(f * value.sum() for f, value in zip(factors, values, strict=True))
    whole, *at_rest = _differentiate(total, (image, *parameters))
    rest = sum(f * gradient for f, gradient in zip(factors[:-1], gradients, strict=True))
    return (*gradients, (whole - rest) / factors[-1]), tuple(at_rest)


def _checked(values: Sequence[Tensor], image: Tensor) -> Sequence[Tensor]:
    for value in values:
        if value.shape != image.shape[:1]:
            raise ValueError(
                f"a score must give one number per image, shape ({len(image)},), "
                f"not {tuple(value.shape)}"
            )
    return values


def _differentiate(
    value: Tensor, inputs: tuple[Tensor, ...], **graph: bool
) -> tuple[Tensor | None, ...]:
    """Return d value / d inputs; ValueError if it does not depend on the first input, the image."""
    found: tuple[Tensor | None, ...] = (None,)
    if value.requires_grad:
        found = torch.autograd.grad(value, inputs, allow_unused=True, **graph)
    if found[0] is None and torch.is_inference_mode_enabled():
        raise ValueError("there are no gradients in torch.inference_mode; no_grad is fine")
    if found[0] is None:
        raise ValueError("the score does not depend on the image, so it has no input gradient")
    return found


@dataclass(frozen=True)
class _Difference:
    """A recorded computation of scores, and the way to take its differences.

    Attributes:
        signs: A row for each sum of scores that is displaced together.
        gradients: Gradients of each score by the image.
        at_rest: Gradients of the sum of all scores by each parameter, at the image.
    """

    scores: Scores
    method: FiniteDifference
    signs: list[list[int]]
    recording: Recording
    gradients: tuple[Tensor, ...]
    at_rest: tuple[Tensor | None, ...]

    def products(
        self,
        image: Tensor,
        parameters: Sequence[Tensor],
        vectors: Sequence[Tensor],
        to_image: bool,
    ) -> list[Tensor | None]:
        """Return the sum over scores of vector . d gradient / d(image, *parameters).

        That of the image is None unless `to_image`.
        """
        gradients = [_combine(row, self.gradients) for row in self.signs]
        vectors = [_combine(row, vectors) for row in self.signs]
        multiples = self._multiples(vectors, together=bool(parameters))
        weights = torch.where(multiples > 0, 1 / multiples, 0.0)
        totals: list[Tensor | None] = [None] * (1 + len(parameters))
        for signs, gradient, vector, multiple, weight in zip(
            self.signs, gradients, vectors, multiples, weights, strict=True
        ):
            if not multiple.any():
                continue
            point = (image.detach() + _per_image(multiple) * vector).requires_grad_(to_image)
            with torch.enable_grad(), self.recording.replayed():
                value = (weight * _combine(signs, self.scores(point))).sum()
                wanted = [point, *parameters] if to_image else parameters
                found = torch.autograd.grad(value, wanted, allow_unused=True)
            found = found if to_image else (None, *found)
            totals = [_sum(total, new) for total, new in zip(totals, found, strict=True)]
            if to_image:
                totals[0] = totals[0] - _per_image(weight) * gradient
        if to_image and totals[0] is None:  # every vector is zero
            totals[0] = torch.zeros_like(image)
        for number, rest in enumerate(self.at_rest, start=1):
            if rest is not None and totals[number] is not None:
                totals[number] = totals[number] - weights[0, 0] * rest
        return totals

    def _multiples(self, vectors: Sequence[Tensor], *, together: bool) -> Tensor:
        """Return the factors (vectors, N) of the displacements; 0 for a vector of zeros."""
        lengths = torch.stack([vector.flatten(1).norm(dim=1) for vector in vectors])
        if together or self.recording.coupled:
            over = (0, 1) if together else 1
            lengths = lengths.square().mean(dim=over, keepdim=True).sqrt().expand_as(lengths)
        return torch.where(lengths > 0, self.method.length(lengths.dtype) / lengths, 0.0)


class _FirstOrder(Function):
    @staticmethod
    def forward(ctx: Any, difference: _Difference, image: Tensor, *parameters: Tensor):
        ctx.difference = difference
        ctx.save_for_backward(image, *parameters)
        return tuple(gradient.clone() for gradient in difference.gradients)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Tensor):
        image, *parameters = ctx.saved_tensors
        products = ctx.difference.products(image, parameters, incoming, ctx.needs_input_grad[1])
        return None, *products


def _combine(signs: Sequence[int], tensors: Sequence[Tensor]) -> Tensor:
    return sum(sign * tensor for sign, tensor in zip(signs, tensors, strict=True) if sign)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _leaves(values: Sequence[Tensor], *, excluding: Tensor) -> list[Tensor]:
    """Return the tensors that require a gradient and from which `values` were computed."""
    nodes = [value.grad_fn for value in values if value.grad_fn is not None]
    seen, leaves = set(nodes), []
    while nodes:
        node = nodes.pop()
        variable = getattr(node, "variable", None)
        if variable is not None and variable is not excluding:
            leaves.append(variable)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return leaves
