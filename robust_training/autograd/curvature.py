"""How an input gradient is itself differentiated.

Robust attribution objectives minimise functions of g = d score / d image, so their weight gradient
needs products of an incoming vector v with dg/d(image, weights). `"exact"` builds the graph of the
backward pass. `"finite_difference"` takes the same products from first-order passes alone,

    v . dg/d(image, weights) ~ d/d(image, weights) [ score(image + s v) - score(image) ] / s,

which needs no second-order kernel and little more memory than an ordinary step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from robust_training.autograd.recompute import Recording

Score = Callable[[Tensor], Tensor]
Scores = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class FiniteDifference:
    """First-order curvature, always computed in the precision of the image, never under autocast.

    Attributes:
        step: L2 length of the displacement of an image in [0,1]. None takes 3e-4 in float32; in
            float64 1e-7, or 1e-5 where central. Each image moves by its own length, but all by one
            common multiple of their v, with `step` the root mean square, where batch statistics
            couple the images (only then are the differences those of the whole batch) and where
            weights share one difference.
        central: Differences between a step ahead and a step behind, for half as much again in time.
            Otherwise between a step ahead and the gradients at hand: in float32 their cosine with
            the exact weight gradient was 0.992 to 1.000, instead of 0.998 to 1.000
            (docs/experiments/performance.md).
        merged: One difference for all scores together, each with a random sign, in half the passes
            of two scores: right on average, with cross terms as noise as large as the result.
            Enough for weights over many steps; too noisy for an attack.
    """

    step: float | None = None
    central: bool = False
    merged: bool = False

    def __post_init__(self) -> None:
        if self.step is not None and not self.step > 0:
            raise ValueError(f"step of a finite difference must be positive, not {self.step}")

    def length(self, dtype: torch.dtype) -> float:
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"finite-difference curvature needs images and weights in float32 or float64, not "
                f"{dtype}: use precision 32-true or bf16-mixed, or exact curvature"
            )
        if self.step is not None:
            return self.step
        if dtype == torch.float32:
            return 3e-4
        return 1e-5 if self.central else 1e-7

    def signs(self, scores: int) -> list[list[int]]:
        """Which sums of scores are displaced together: each alone, or all with random signs."""
        if self.merged:
            return [[1 - 2 * int(flip) for flip in torch.randint(2, (scores,))]]
        return [[int(i == k) for k in range(scores)] for i in range(scores)]


@dataclass(frozen=True)
class Recomputed:
    """Another curvature whose passes run when they are needed, and again each time: of each
    gradient only the images stay in memory. For attacks: weights get no gradient.

    Attributes:
        curvature: "exact", "finite_difference" or a FiniteDifference.
    """

    curvature: Literal["exact", "finite_difference"] | FiniteDifference


Curvature = Literal["exact", "finite_difference"] | FiniteDifference | Recomputed


def recomputed(
    gradients: Callable[[Tensor, bool], tuple[Tensor, ...]], image: Tensor
) -> tuple[Tensor, ...]:
    """gradients(image, create_graph), differentiable by the image alone, from its own graph."""
    return _Again.apply(image, gradients)


class _Again(Function):
    @staticmethod
    def forward(ctx, image, gradients):
        ctx.save_for_backward(image)
        ctx.gradients = gradients
        return gradients(image, False)

    @staticmethod
    @once_differentiable
    def backward(ctx, *incoming):
        (image,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = image.detach().requires_grad_()
            (found,) = torch.autograd.grad(ctx.gradients(leaf, True), leaf, incoming)
        return found, None


def first_order_gradients(
    scores: Scores, image: Tensor, method: FiniteDifference
) -> tuple[Tensor, ...]:
    """The gradients (N,...) of each score at `image`, differentiable by finite differences."""
    method.length(image.dtype)
    recording = Recording(image.device)
    with torch.enable_grad(), recording:
        point = image.detach().requires_grad_()
        values = scores(point)
        parameters = _leaves(values, excluding=point)
        signs = method.signs(len(values))
        gradients, at_rest = gradients_of(
            values, point, signs=signs, parameters=() if method.central else parameters
        )
    difference = _Difference(scores, method, signs, recording, at_rest)
    return _FirstOrder.apply(difference, len(gradients), image, *gradients, *parameters)


def gradients_of(
    values: tuple[Tensor, ...],
    image: Tensor,
    *,
    create_graph: bool = False,
    signs: Sequence[Sequence[int]] = (),
    parameters: Sequence[Tensor] = (),
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """d sum(value) / d image for each of `values`, and d(their sum by `signs`) / d parameters.

    The values share one graph and take one backward pass each. The parameters ride on the last,
    which is then that of the sum over all rows of signs, and the last image gradient is what
    the others leave of it.
    """
    factors = [sum(column) for column in zip(*signs, strict=True)]
    gradients: list[Tensor] = []
    at_rest: tuple[Tensor | None, ...] = ()
    for position, value in enumerate(values):
        if value.shape != image.shape[:1]:
            raise ValueError(
                f"a score must give one number per image, shape ({len(image)},), "
                f"not {tuple(value.shape)}"
            )
        is_last = position + 1 == len(values)
        carried = parameters if is_last else ()
        gradient = None
        if value.requires_grad:
            gradient, *at_rest = torch.autograd.grad(
                sum(f * v.sum() for f, v in zip(factors, values, strict=True))
                if carried
                else value.sum(),
                (image, *carried),
                retain_graph=create_graph or not is_last,
                create_graph=create_graph,
                allow_unused=True,
            )
        if gradient is None and torch.is_inference_mode_enabled():
            raise ValueError("there are no gradients in torch.inference_mode; no_grad is fine")
        if gradient is None:
            raise ValueError("the score does not depend on the image, so it has no input gradient")
        if carried:
            rest = sum(f * g for f, g in zip(factors, gradients, strict=False))
            gradient = (gradient - rest) / factors[-1]
        gradients.append(gradient)
    return tuple(gradients), tuple(at_rest)


@dataclass(frozen=True)
class _Difference:
    """What the difference is taken of, and how.

    Attributes:
        signs: A row for each sum of scores that is displaced together.
        at_rest: Without a step behind, gradients of the sum of all scores by each parameter.
    """

    scores: Scores
    method: FiniteDifference
    signs: list[list[int]]
    recording: Recording
    at_rest: tuple[Tensor | None, ...]

    def multiples(self, vectors: tuple[Tensor, ...], *, together: bool) -> Tensor:
        """(vectors, N): how far along its rows the images go; 0 where a row is zero."""
        rows = torch.stack([vector.flatten(1).norm(dim=1) for vector in vectors])
        if together or self.recording.coupled:
            over = (0, 1) if together else 1
            rows = rows.square().mean(dim=over, keepdim=True).sqrt().expand_as(rows)
        return torch.where(rows > 0, self.method.length(rows.dtype) / rows, 0.0)

    def gradients(
        self,
        point: Tensor,
        signs: list[int],
        weight: Tensor,
        parameters: list[Tensor],
        to_image: bool,
    ) -> list[Tensor | None]:
        """d sum(weight * sum of scores) / d(point, *parameters) at the images `point`."""
        wanted = [point.requires_grad_(), *parameters] if to_image else parameters
        with torch.enable_grad(), self.recording.replayed():
            value = (weight * _combine(signs, self.scores(point))).sum()
            found = torch.autograd.grad(value, wanted, allow_unused=True)
        return [*([] if to_image else [None]), *found]


class _FirstOrder(Function):
    @staticmethod
    def forward(ctx, difference: _Difference, count: int, image: Tensor, *tensors: Tensor):
        gradients, parameters = tensors[:count], tensors[count:]
        ctx.difference, ctx.count = difference, count
        ctx.save_for_backward(image, *gradients, *parameters)
        return tuple(gradient.clone() for gradient in gradients)

    @staticmethod
    @once_differentiable
    def backward(ctx, *incoming: Tensor):
        image, *tensors = ctx.saved_tensors
        gradients, parameters = tensors[: ctx.count], tensors[ctx.count :]
        wants = (ctx.needs_input_grad[2], *ctx.needs_input_grad[3 + ctx.count :])
        products = _products(ctx.difference, image, gradients, incoming, parameters, wants)
        return (None, None, products[0], *[None] * ctx.count, *products[1:])


def _products(
    difference: _Difference,
    image: Tensor,
    gradients: list[Tensor],
    vectors: tuple[Tensor, ...],
    parameters: list[Tensor],
    wants: tuple[bool, ...],
) -> list[Tensor | None]:
    """Sum over scores of vector . d gradient / d(image, *parameters), None where not wanted."""
    central, to_image = difference.method.central, wants[0]
    chosen = [p for p, want in zip(parameters, wants[1:], strict=True) if want]
    gradients = [_combine(row, gradients) for row in difference.signs]
    vectors = [_combine(row, vectors) for row in difference.signs]
    multiples = difference.multiples(vectors, together=bool(chosen) and not central)
    weights = torch.where(multiples > 0, 1 / (2 * multiples if central else multiples), 0.0)
    totals: list[Tensor | None] = [None] * (1 + len(chosen))
    for signs, gradient, vector, multiple, weight in zip(
        difference.signs, gradients, vectors, multiples, weights, strict=True
    ):
        if not multiple.any():
            continue
        for sign in (1, -1) if central else (1,):
            point = image.detach() + sign * _rows(multiple) * vector
            found = difference.gradients(point, signs, sign * weight, chosen, to_image)
            totals = [_sum(total, new) for total, new in zip(totals, found, strict=True)]
        if to_image and not central:
            totals[0] = totals[0] - _rows(weight) * gradient
    if to_image and totals[0] is None:  # no row of v is other than zero
        totals[0] = torch.zeros_like(image)
    products = dict(zip(chosen, totals[1:], strict=True))
    if not central:
        for parameter, rest in zip(parameters, difference.at_rest, strict=True):
            if rest is not None and products.get(parameter) is not None:
                products[parameter] = products[parameter] - weights[0, 0] * rest
    return [totals[0], *(products.get(parameter) for parameter in parameters)]


def _combine(signs: Sequence[int], tensors: Sequence[Tensor]) -> Tensor:
    return sum(sign * tensor for sign, tensor in zip(signs, tensors, strict=True) if sign)


def _rows(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _leaves(values: tuple[Tensor, ...], *, excluding: Tensor) -> list[Tensor]:
    """The tensors that require a gradient and that `values` were computed from."""
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
