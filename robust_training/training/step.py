"""One training step: what Fabric wraps."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from robust_training.models.classifier import Classifier
from robust_training.objectives import AttackState, Objective


class Batch:
    """Images and labels in a box that Fabric does not open.

    Its mixed precision rounds every float tensor it is handed to bfloat16, where an attack of
    eps 2/255 is half a rounding step near 1.

    Attributes:
        carried: What an attack leaves for the next step on this batch.
    """

    def __init__(self, image: Tensor, label: Tensor) -> None:
        self.image = image
        self.label = label
        self.carried = AttackState()


class Step(nn.Module):
    """A batch -> the objective's terms.

    Launchers wrap this whole step: wrapped around the model alone, they break the
    `autograd.grad` calls inside an objective.
    """

    def __init__(self, model: Classifier, objective: Objective) -> None:
        super().__init__()
        if model.backbone.num_classes < 2:
            raise ValueError("training needs at least 2 classes, and num_classes of the model is 1")
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        image = batch.image.to(next(self.model.parameters()).dtype)
        try:
            return self.objective.forward_with_state(self.model, image, batch.label, batch.carried)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"batch normalisation needs more than {len(image)} image of {image.shape[-1]} "
                "pixels in a batch: raise data.batch_size or data.image_size"
            ) from error


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Says in words where PyTorch cannot differentiate a layer's gradient.

    Raises:
        ValueError: names the operation and what to set instead.
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
