"""Two ways to differentiate an input gradient: exactly, and by finite differences.

Robust attribution objectives minimise functions of g = d score / d image. The gradient with respect
to the network's weights needs products v . dg/d(image, weights), where v is the incoming gradient.
`"exact"` builds the graph of the backward pass. `"finite_difference"` computes the products with
ordinary forward and backward passes only,

    v . dg/d(image, weights) ~ d/d(image, weights) [ score(image + s v) - score(image) ] / s,

where s is a small number. This needs no second-order kernel, and little more memory than an
ordinary step.
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
    """Approximates the second derivative by a difference of first derivatives. Autocast is off.

    Attributes:
        step: L2 length of the displacement of an image in [0,1]. If None, 3e-4 in float32 and 1e-7
            in float64. Usually each image has its own s, so that its displacement has length
            `step`. All images have the same s if BatchNorm makes them depend on each other, or if
            gradients of weights are needed. `step` is then the root mean square of the lengths.
        merged: Use one difference of all scores together, each with a random sign. With two scores
            this halves the number of passes. The expected value is correct, but the noise is as
            large as the result. Use it for weights, not for attacks.
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
        """Return one row of signs for each difference: each differentiates a signed sum."""
        if self.merged:
            return [[1 - 2 * int(flip) for flip in torch.randint(2, (scores,))]]
        return [[int(i == k) for k in range(scores)] for i in range(scores)]


@dataclass(frozen=True)
class Recomputed:
    """A curvature with passes that are recomputed in backward, as in checkpointing.

    Only the images stay in memory. It is for attacks: weights get no gradient.

    Attributes:
        curvature: "exact", "finite_difference" or a FiniteDifference.
    """

    curvature: Literal["exact", "finite_difference"] | FiniteDifference


Curvature = Literal["exact", "finite_difference"] | FiniteDifference | Recomputed


class RecomputedGradients(Function):
    """gradients(image, create_graph=False), recomputed in backward.

    The result can be differentiated only with respect to the image.
    """

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
    """Return d sum(value) / d image for each of `values`, with one backward pass for each.

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
    """Return the gradient (N,...) of each score at `image`; backward uses finite differences."""
    method.length(image.dtype)
    recording = Recording(image.device)
    with torch.enable_grad(), recording.recorded():
        point = image.detach().requires_grad_()
        values = scores(point)
        parameters = _leaves(values, excluding=point)
        signs = method.signs(len(values))
        gradients, parameter_gradients = _undisplaced_gradients(values, point, signs, parameters)
    difference = _Difference(scores, method, signs, recording, gradients, parameter_gradients)
    return _FirstOrder.apply(difference, image, *parameters)


def _undisplaced_gradients(
    values: Sequence[Tensor],
    image: Tensor,
    signs: Sequence[Sequence[int]],
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """Return the gradients of `values` with respect to the image, and of their signed sum with
    respect to `parameters`.

    The signed sum adds all rows of `signs`. One backward pass for each value is enough. The last
    pass differentiates the signed sum. The last value's gradient follows by subtraction of the
    others.
    """
    if not parameters:
        return gradients_of(values, image), ()
    *others, _ = _checked(values, image)
    gradients = gradients_of(others, image, retain_graph=True)
    factors = [sum(column) for column in zip(*signs, strict=True)]
    total = sum(f * value.sum() for f, value in zip(factors, values, strict=True))
    whole, *parameter_gradients = _differentiate(total, (image, *parameters))
    rest = sum(f * gradient for f, gradient in zip(factors[:-1], gradients, strict=True))
    return (*gradients, (whole - rest) / factors[-1]), tuple(parameter_gradients)


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
    """Return d value / d inputs.

    Raises ValueError if the value does not depend on the first input, the image.
    """
    found: tuple[Tensor | None, ...] = (None,)
    if value.requires_grad:
        found = torch.autograd.grad(value, inputs, allow_unused=True, **graph)
    if found[0] is None and torch.is_inference_mode_enabled():
        raise ValueError(
            "there are no gradients in torch.inference_mode; use torch.no_grad instead"
        )
    if found[0] is None:
        raise ValueError("the score does not depend on the image, so it has no input gradient")
    return found


@dataclass(frozen=True)
class _Difference:
    """A recorded computation of scores, and the settings of its finite differences.

    Attributes:
        signs: One row of signs for each difference.
        gradients: Gradients of each score with respect to the image.
        parameter_gradients: Gradients of the signed sum with respect to each parameter, at the
            undisplaced image.
    """

    scores: Scores
    method: FiniteDifference
    signs: list[list[int]]
    recording: Recording
    gradients: tuple[Tensor, ...]
    parameter_gradients: tuple[Tensor | None, ...]

    def products(
        self, image: Tensor, parameters: Sequence[Tensor], vectors: Sequence[Tensor], to_image: bool
    ) -> list[Tensor | None]:
        """Return the sum over scores of vector . d gradient / d(image, *parameters).

        Without `to_image`, the product with d(image) is None.
        """
        gradients = [_combine(row, self.gradients) for row in self.signs]
        vectors = [_combine(row, vectors) for row in self.signs]
        multiples = self._multiples(vectors, together=bool(parameters))
        inverses = torch.where(multiples > 0, 1 / multiples, 0.0)
        totals: list[Tensor | None] = [None] * (1 + len(parameters))
        for signs, gradient, vector, multiple, inverse in zip(
            self.signs, gradients, vectors, multiples, inverses, strict=True
        ):
            if not multiple.any():
                continue
            point = (image.detach() + _per_image(multiple) * vector).requires_grad_(to_image)
            with torch.enable_grad(), self.recording.replayed():
                value = (inverse * _combine(signs, self.scores(point))).sum()
                wanted = [point, *parameters] if to_image else parameters
                found = torch.autograd.grad(value, wanted, allow_unused=True)
            found = found if to_image else (None, *found)
            totals = [_sum(total, new) for total, new in zip(totals, found, strict=True)]
            if to_image:
                totals[0] = totals[0] - _per_image(inverse) * gradient
        if to_image and totals[0] is None:  # every vector is zero
            totals[0] = torch.zeros_like(image)
        for number, undisplaced in enumerate(self.parameter_gradients, start=1):
            if undisplaced is not None and totals[number] is not None:
                totals[number] = totals[number] - inverses[0, 0] * undisplaced
        return totals

    def _multiples(self, vectors: Sequence[Tensor], *, together: bool) -> Tensor:
        """Return the multiple s of v for each vector and image, (vectors, N); 0 if v is zero. With
        `together` there is one multiple for all vectors and images."""
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
