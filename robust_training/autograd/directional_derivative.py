"""How steeply a score rises, from two forward passes instead of a second derivative."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from robust_training.autograd.recompute import RandomState
from robust_training.models.classifier import Classifier

Norm = Literal["l2", "l1", "linf"]


def slope(
    model: Classifier,
    score: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    norm: Norm = "l2",
    step: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Logits (N,C) at `image` and (score(image + step v) - score(image)) / step, (N,), where v is
    the direction in which the score's gradient g has its `norm`, held.

    Both passes can be differentiated by the weights at first order (Finlay and Oberman, 2019, arXiv
    1905.11468, Algorithm 1; cifar10/train.py). "l2": v = g / ||g||_2. "l1": v = sign(g) / sqrt(D)
    with D entries per image, so that the slope is ||g||_1 / sqrt(D). "linf": the entry of largest
    magnitude alone. Images are not clipped to [0,1] after the step.

    Both passes draw the same dropout masks.

    Args:
        score: Logits (N,C) -> (N,).
        image: (N,3,H,W) in [0,1].
        step: L2 length of the displacement, in pixel units of [0,1].

    Raises:
        ValueError: images below float32, or a front end that rounds, where the step is lost.
    """
    if image.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"a slope needs images and weights in float32 or float64, not {image.dtype}: use "
            "precision 32-true or bf16-mixed"
        )
    if model.log_gradient is not None and model.log_gradient.bits is not None:
        raise ValueError(
            "a difference is lost between the levels of log_gradient with bits: use the exact "
            "form of MarginalDensity, or no bits"
        )
    # the displacement of one pixel is far below what bfloat16 resolves
    with torch.autocast(image.device.type, enabled=False):
        random_state = RandomState(image.device)
        leaf = image.detach().requires_grad_()
        logits = model(leaf)
        values = score(logits)
        (gradient,) = torch.autograd.grad(values.sum(), leaf, retain_graph=True)
        direction = _STEEPEST[norm](gradient.flatten(1)).view_as(image)
        with random_state.replayed():
            ahead = score(model(image + step * direction))
        return logits, (ahead - values) / step


def require_norm(owner: str, norm: str) -> None:
    """ValueError unless there is a direction for this norm."""
    if norm not in _STEEPEST:
        raise ValueError(f"norm of {owner} must be one of {list(_STEEPEST)}, not {norm!r}")


def _l2(rows: Tensor) -> Tensor:
    length = rows.norm(dim=1, keepdim=True)
    return rows / length.masked_fill(length == 0, torch.inf)


def _l1(rows: Tensor) -> Tensor:
    return rows.sign() / rows.shape[1] ** 0.5


def _linf(rows: Tensor) -> Tensor:
    largest = rows.abs().argmax(dim=1, keepdim=True)
    return torch.zeros_like(rows).scatter(1, largest, rows.gather(1, largest).sign())


_STEEPEST: dict[str, Callable[[Tensor], Tensor]] = {"l2": _l2, "l1": _l1, "linf": _linf}
