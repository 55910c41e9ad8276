"""One forward pass of training: the module that Fabric wraps."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from robust_training.models.classifier import Classifier
from robust_training.objectives import AttackState, Objective


class Batch:
    """Images (N,3,H,W) in [0,1] and labels (N,), in a class that Fabric does not convert. Its mixed
    precision would round all float tensors to bfloat16. Near 1, eps 2/255 is only half a rounding
    step of bfloat16.

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
                f"batch normalisation needs more than {len(image)} image of {image.shape[-1]} "
                "pixels in a batch: raise data.batch_size or data.image_size"
            ) from error


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
            "curvature and attack_curvature to finite_difference, or the objective's beta"
        ) from error
