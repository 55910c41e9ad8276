"""How an input gradient is itself differentiated.

Robust attribution objectives minimise functions of g = d score / d image, so their weight gradient
needs products of an incoming vector v with dg/d(image, weights). `"exact"` builds the graph of the
backward pass. `"finite_difference"` takes the same products from first-order passes alone,

    v . dg/d(image, weights) ~ d/d(image, weights) [ score(image + s v) - score(image - s v) ] / 2s,

which needs no second-order kernel and no more memory than an ordinary step.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

Score = Callable[[Tensor], Tensor]
Scores = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class FiniteDifference:
    """First-order curvature, always computed in the precision of the image, never under autocast.

    Attributes:
        step: L2 length of the displacement of an image in [0,1]. None takes 3e-4 in float32 and
            1e-5 in float64. Each image moves by its own length, but where batch statistics couple
            the images: there all move by one common multiple of their v, with `step` the root mean
            square, since only then are the differences those of the whole batch.
        one_sided: Differentiate towards the image by a forward difference against the gradient at
            hand, for half the passes; enough where only a sign is used. Weights are always
            differentiated by central differences.
    """

    step: float | None = None
    one_sided: bool = False

    def __post_init__(self) -> None:
        if self.step is not None and not self.step > 0:
            raise ValueError(f"step of a finite difference must be positive, not {self.step}")

    def length(self, dtype: torch.dtype) -> float:
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"finite-difference curvature needs images and weights in float32 or float64, not "
                f"{dtype}: use precision 32-true or bf16-mixed, or exact curvature"
            )
        return self.step or (1e-5 if dtype == torch.float64 else 3e-4)


Curvature = Literal["exact", "finite_difference"] | FiniteDifference


def first_order_gradients(scores: Scores, image: Tensor, method: FiniteDifference):
    """The gradients (N,...) of each score at `image`, differentiable by finite differences."""
    method.length(image.dtype)
    pooling = _MaxPooling()
    random_state = _RandomState(image.device)
    with torch.enable_grad(), _full_precision(image), _calls() as calls, pooling:
        point = image.detach().requires_grad_()
        values = scores(point)
        parameters = _leaves(values, excluding=point)
        gradients = gradients_of(values, point)
    evaluation = _Evaluation(
        scores=scores,
        method=method,
        module_flags=[(m, m.training, getattr(m, "track_running_stats", None)) for m in calls],
        coupled=any(isinstance(m, _BatchNorm) and training for m, training in calls.items()),
        function_modes=_get_current_function_mode_stack(),
        pooled=pooling.chosen,
        random_state=random_state,
    )
    return _FirstOrder.apply(evaluation, len(gradients), image, *gradients, *parameters)


def gradients_of(
    values: tuple[Tensor, ...], image: Tensor, *, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """d sum(value) / d image for each of `values`, which share one graph."""
    gradients = []
    for position, value in enumerate(values):
        if value.shape != image.shape[:1]:
            raise ValueError(
                f"a score must give one number per image, shape ({len(image)},), "
                f"not {tuple(value.shape)}"
            )
        keep = create_graph or position + 1 < len(values)
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(
                value.sum(), image, retain_graph=keep, create_graph=create_graph, allow_unused=True
            )
        if gradient is None:
            raise ValueError("the score does not depend on the image, so it has no input gradient")
        gradients.append(gradient)
    return tuple(gradients)


@dataclass(frozen=True)
class _Evaluation:
    """What it takes to run the scores again exactly as they ran before, and leave no trace."""

    scores: Scores
    method: FiniteDifference
    module_flags: list[tuple[nn.Module, bool, bool | None]]
    coupled: bool
    function_modes: list[TorchFunctionMode]
    pooled: list[Tensor]
    random_state: "_RandomState"

    def multiples(self, vector: Tensor) -> Tensor:
        """(N,): how far along its row of `vector` each image goes; 0 where the row is zero."""
        rows = vector.flatten(1).norm(dim=1)
        if self.coupled:
            rows = rows.square().mean().sqrt().expand_as(rows)
        step = self.method.length(vector.dtype)
        return torch.where(rows > 0, step / rows, 0.0)

    def gradients(self, point: Tensor, index: int, weight: Tensor, wanted: tuple[Tensor, ...]):
        """d sum(weight * score) / d wanted at the images `point`."""
        with ExitStack() as stack:
            for context in (torch.enable_grad(), _full_precision(point), *self.function_modes):
                stack.enter_context(context)
            stack.enter_context(self.random_state.replayed())
            stack.enter_context(_flags(self.module_flags))
            if self.pooled:
                stack.enter_context(_MaxPooling(self.pooled))
            value = (weight * self.scores(point)[index]).sum()
            return torch.autograd.grad(value, wanted, allow_unused=True)


class _FirstOrder(Function):
    @staticmethod
    def forward(ctx, evaluation: _Evaluation, count: int, image: Tensor, *tensors: Tensor):
        gradients, parameters = tensors[:count], tensors[count:]
        ctx.evaluation, ctx.count = evaluation, count
        ctx.save_for_backward(image, *gradients, *parameters)
        return tuple(gradient.clone() for gradient in gradients)

    @staticmethod
    @once_differentiable
    def backward(ctx, *incoming: Tensor):
        image, *tensors = ctx.saved_tensors
        gradients, parameters = tensors[: ctx.count], tensors[ctx.count :]
        needs = ctx.needs_input_grad
        totals: list[Tensor | None] = [None] * (1 + len(parameters))
        wants = (needs[2], *needs[3 + ctx.count :])
        for index, (vector, gradient) in enumerate(zip(incoming, gradients, strict=True)):
            products = _products(ctx.evaluation, index, image, gradient, vector, parameters, wants)
            totals = [_sum(total, product) for total, product in zip(totals, products, strict=True)]
        return (None, None, totals[0], *[None] * ctx.count, *totals[1:])


def _products(evaluation, index, image, gradient, vector, parameters, wants):
    """vector . d gradient / d(image, *parameters), None where it is not wanted."""
    multiple = evaluation.multiples(vector)
    if not multiple.any():
        return [None] * len(wants)
    chosen = [p for p, want in zip(parameters, wants[1:], strict=True) if want]
    one_sided = evaluation.method.one_sided and not chosen
    weight = torch.where(multiple > 0, 1 / (multiple if one_sided else 2 * multiple), 0.0)

    def at(sign: int):
        point = image.detach() + sign * _rows(multiple) * vector
        point.requires_grad_()
        return evaluation.gradients(point, index, weight, (point, *chosen))

    ahead = at(+1)
    behind = (_rows(weight) * gradient,) if one_sided else at(-1)
    differences = iter(None if a is None else a - b for a, b in zip(ahead, behind, strict=True))
    towards_image = next(differences)
    return [towards_image if wants[0] else None] + [
        next(differences) if want else None for want in wants[1:]
    ]


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


@contextmanager
def _calls() -> Iterator[dict[nn.Module, bool]]:
    """The modules whose forward runs inside the `with`, and whether each was training then."""
    called: dict[nn.Module, bool] = {}

    def note(module: nn.Module, _) -> None:
        called[module] = module.training

    handle = register_module_forward_pre_hook(note)
    try:
        yield called
    finally:
        handle.remove()


@contextmanager
def _flags(flags: list[tuple[nn.Module, bool, bool | None]]) -> Iterator[None]:
    """Modules in the modes they had, with running statistics that stay where they are."""
    now = [(m, m.training, getattr(m, "track_running_stats", None)) for m, _, _ in flags]
    for module, training, tracking in flags:
        module.training = training
        if tracking is not None:
            module.track_running_stats = False
    try:
        yield
    finally:
        for module, training, tracking in now:
            module.training = training
            if tracking is not None:
                module.track_running_stats = tracking


def _full_precision(image: Tensor) -> torch.autocast:
    """No autocast: a displacement of 3e-4 would vanish in bfloat16."""
    return torch.autocast(image.device.type, enabled=False)


class _MaxPooling(TorchFunctionMode):
    """Records which pixel each max-pooling window chose, or repeats those choices.

    Exact curvature holds the choice: its derivative is zero but where two pixels tie. Flat image
    regions are full of ties, which a displacement breaks one way and its mirror image the other.
    """

    def __init__(self, replayed: list[Tensor] | None = None) -> None:
        super().__init__()
        self.chosen: list[Tensor] = []
        self.replayed = iter(replayed) if replayed is not None else None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in _MAX_POOLING or kwargs.get("return_indices"):
            return func(*args, **kwargs)
        if self.replayed is not None:
            chosen = next(self.replayed)
            return args[0].flatten(2).gather(2, chosen.flatten(2)).view(chosen.shape)
        output, chosen = F.max_pool2d_with_indices(*args, **kwargs)
        self.chosen.append(chosen)
        return output


_MAX_POOLING = (F.max_pool2d, torch.max_pool2d)


class _RandomState:
    """The random generators as they stand now, to draw the same dropout masks again later."""

    def __init__(self, device: torch.device) -> None:
        self.devices = [device] if device.type == "cuda" else []
        self.cpu = torch.get_rng_state()
        self.cuda = [torch.cuda.get_rng_state(device) for device in self.devices]

    @contextmanager
    def replayed(self) -> Iterator[None]:
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
