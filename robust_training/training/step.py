"""One forward pass of training: the module that Fabric wraps, and the loss of its terms."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from robust_training.models.classifier import Classifier
from robust_training.objectives import AttackState, Objective
from robust_training.training.processes import totals

_MOMENTUM = 0.9  # of the running means of gradient norms
CROSS_ENTROPY = "cross_entropy"


class Batch:
    """Images (N,3,H,W) in [0,1] and labels (N,), in a class that Fabric does not convert. Fabric's
    mixed precision would round all float tensors to bfloat16. Just below 1, eps 2/255 is only two
    rounding steps of bfloat16.

    Attributes:
        attack_state: State of the attack, for the next step on this batch.
    """

    def __init__(self, image: Tensor, label: Tensor) -> None:
        self.image = image
        self.label = label
        self.attack_state = AttackState()


class Step(nn.Module):
    """Computes the objective's terms for a batch.

    Fabric wraps this whole step. If it wrapped only the model, the `autograd.grad` calls inside an
    objective would fail.
    """

    def __init__(self, model: Classifier, objective: Objective) -> None:
        super().__init__()
        if model.num_classes < 2:
            raise ValueError("training needs at least 2 classes, and num_classes of the model is 1")
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch, epoch: float = 0.0) -> dict[str, Tensor]:
        """Return the weighted terms; their sum is the loss.

        Args:
            epoch: Epochs trained so far, fractions included, for objectives that change over time.
        """
        objective = self.objective.at(epoch)
        image = batch.image.to(next(self.model.parameters()).dtype)
        try:
            return objective.forward_with_state(self.model, image, batch.label, batch.attack_state)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"batch normalisation cannot use a batch of {len(image)} image of "
                f"{image.shape[-1]} px: raise data.batch_size or data.image_size"
            ) from error


class Balance:
    """Multiplies each term besides the cross-entropy by a factor, so that no term is negligible.

    The gradient of the term times its factor has `fraction` of the norm of the cross-entropy's
    gradient. Both norms cover all parameters, and both are running means of the measured steps.
    This is the adaptive weight of VQGAN (Esser et al., CVPR 2021, Eq. 7) with running means.
    GradNorm (Chen et al., ICML 2018) balances the same norms by an optimizer of its own.
    The objective's own weights then have no effect, except that a weight of 0 switches a term off.

    Attributes:
        fraction: If None, all factors are 1.
        norms: Name of a term -> running mean of its gradient's norm. The caller saves it.
    """

    def __init__(self, fraction: float | None, norms: dict[str, float]) -> None:
        self.fraction = fraction
        self.norms = norms

    def measure(
        self, fabric: Fabric, terms: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]
    ) -> None:
        """Measure the gradients of `terms`, whose graph stays usable, and update `norms`. Raises
        ValueError if the objective has no cross-entropy, or no added term."""
        if self.fraction is None:
            return
        is_reference = [name.endswith(CROSS_ENTROPY) for name in terms]
        if all(is_reference) or not any(is_reference):
            raise ValueError(
                "balance needs an objective with a cross-entropy and a further term, but the terms "
                f"are {', '.join(terms)}: remove balance"
            )
        world = fabric.world_size
        now = [
            total / world
            for total in totals(fabric, [_norm(t, parameters) for t in terms.values()])
        ]
        if all(map(math.isfinite, now)):
            for name, value in zip(terms, now, strict=True):
                self.norms[name] = value + _MOMENTUM * (self.norms.get(name, value) - value)

    def factors(self) -> dict[str, float]:
        """Return the factor of every added term with a gradient."""
        names = [name for name in self.norms if not name.endswith(CROSS_ENTROPY)]
        reference = math.hypot(*(self.norms[name] for name in self.norms if name not in names))
        return {n: self.fraction * reference / self.norms[n] for n in names if self.norms[n] > 0}

    def loss(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the terms times their factors."""
        factors = self.factors()
        return sum(factors.get(name, 1.0) * term for name, term in terms.items())


def _norm(term: Tensor, parameters: Sequence[nn.Parameter]) -> float:
    """Norm of the gradient of `term` with respect to all `parameters`; 0 if it depends on none."""
    if not term.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    found = [gradient for gradient in gradients if gradient is not None]
    return torch.nn.utils.get_total_norm(found).item() if found else 0.0


@contextmanager
def second_derivatives_explained() -> Iterator[None]:
    """Replace PyTorch's error about a missing second derivative by a message with a solution.

    Raises:
        ValueError: The message names the operation and the settings to change.
    """
    try:
        yield
    except RuntimeError as error:
        missing = re.search(r"derivative for (?:aten::)?(\w+) is not implemented", str(error))
        if missing is None:
            raise
        raise ValueError(
            f"PyTorch has no second derivative of {missing[1]}, a layer of this network: set "
            "curvature and attack_curvature to finite_difference, or, if it is an activation, set "
            "the objective's beta, so that softplus replaces it"
        ) from error
