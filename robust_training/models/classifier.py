"""The classifier that takes images in [0,1]."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robust_training.models.log_gradient import LogGradient
from robust_training.models.own_network import OwnNetwork

LARGEST = 8192  # largest side of a network's input, in pixels


class Classifier(nn.Module):
    """A network with normalisation, or with log-gradient images in place of it.

    Images (N,3,H,W) in [0,1] -> logits (N,classes).

    Attributes:
        backbone: The plain network, in most cases timm's.
        own: A description of the backbone if it is not timm's, otherwise None.
        mean, std: (1,3,1,1). A timm model's from its pretrained_cfg, or 0 and 1 with
            `log_gradient`.
        log_gradient: The layer that replaces normalisation, or None.
        image_size: Side of the square input images, in pixels.
        last_stride: The value given to `create_model`.
        class_names: One name for each class, or None if there are no names.
    """

    def __init__(
        self,
        backbone: nn.Module,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        *,
        log_gradient: LogGradient | None = None,
        image_size: int = 224,
        last_stride: int | None = None,
        class_names: Sequence[str] | None = None,
        own: OwnNetwork | None = None,
    ) -> None:
        super().__init__()
        if log_gradient is not None and (any(mean) or any(value != 1 for value in std)):
            raise ValueError(
                "log_gradient takes images in [0,1]: leave mean and std at their defaults"
            )
        self.backbone = backbone
        self.own = own
        self.log_gradient = log_gradient
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.image_size = image_size
        self.last_stride = last_stride
        self.class_names = class_names

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def num_classes(self) -> int:
        return self.backbone.num_classes if self.own is None else self.own.num_classes

    @property
    def architecture(self) -> str:
        """timm's name of the architecture, or the class path of another network."""
        return self.backbone.pretrained_cfg["architecture"] if self.own is None else self.own.path

    @property
    def fixed_size(self) -> bool:
        """Whether the network takes only images of `image_size`."""
        if self.own is not None:
            return self.own.fixed_size
        return self.backbone.pretrained_cfg.get("fixed_input_size", False)

    def normalize(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std

    def prepare(self, image: Tensor) -> Tensor:
        """Apply normalisation or `log_gradient`; the result is the backbone's input."""
        normalized = self.normalize(image)
        return normalized if self.log_gradient is None else self.log_gradient(normalized)

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone(self.prepare(image))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model is in evaluation mode inside; afterwards every module has its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
