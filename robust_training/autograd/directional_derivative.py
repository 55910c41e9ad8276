"""The derivative of a score along a direction, from two forward passes."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from robust_training.autograd.recompute import RandomState
from robust_training.models.classifier import Classifier

Norm = Literal["l2", "l1", "linf"]


def directional_derivative(
    model: Classifier,
    score: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    norm: Norm = "l2",
    step: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Return the logits (N,C) and the derivative (N,) of a score along its steepest direction v.

    The derivative is (score(image + step v) - score(image)) / step, where v is a constant. So its
    gradient with respect to the weights needs first derivatives only (Finlay and Oberman, 2019,
    arXiv 1905.11468, Algorithm 1; cifar10/train.py). Both passes draw the same dropout masks.
    Images are not clipped to [0,1] after the step. On a GPU, switch TF32 off, as `fit` does: the
    difference is as small as its rounding errors.

    Args:
        score: Logits (N,C) -> (N,).
        image: (N,3,H,W) in [0,1].
        norm: The derivative approximates this norm of the score's gradient g. "l2":
            v = g / ||g||_2. "l1": v = sign(g) / sqrt(D) with D entries per image, so the derivative
            is ||g||_1 / sqrt(D). "linf": v is 0 except at the entry of largest magnitude.
        step: L2 length of the displacement, in pixel units of [0,1].

    Raises:
        ValueError: The step would have no effect, because the precision is lower than float32 or
            log_gradient rounds.
    """
    if image.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"a directional derivative needs images and weights in float32 or float64, not "
            f"{image.dtype}: use precision 32-true or bf16-mixed"
        )
    if model.log_gradient is not None and model.log_gradient.bits is not None:
        raise ValueError(
            "log_gradient with bits rounds small differences to zero: use the exact form of "
            "MarginalDensity, or no bits"
        )
    # bfloat16 does not resolve the displacement of one pixel
    with torch.autocast(image.device.type, enabled=False):
        random_state = RandomState(image.device)
        leaf = image.detach().requires_grad_()
        logits = model(leaf)
        values = score(logits)
        (gradient,) = torch.autograd.grad(values.sum(), leaf, retain_graph=True)
        direction = STEEPEST[norm](gradient.flatten(1)).view_as(image)
        with random_state.replayed():
            ahead = score(model(image + step * direction))
        return logits, (ahead - values) / step


def _l2(rows: Tensor) -> Tensor:
    length = rows.norm(dim=1, keepdim=True)
    return rows / length.masked_fill(length == 0, torch.inf)


def _l1(rows: Tensor) -> Tensor:
    return rows.sign() / rows.shape[1] ** 0.5


def _linf(rows: Tensor) -> Tensor:
    largest = rows.abs().argmax(dim=1, keepdim=True)
    return torch.zeros_like(rows).scatter(1, largest, rows.gather(1, largest).sign())


# norm of a gradient (N,D) -> its steepest direction (N,D)
STEEPEST: dict[str, Callable[[Tensor], Tensor]] = {"l2": _l2, "l1": _l1, "linf": _linf}
