"""The resolution of a network's last stage."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def set_last_stride(backbone: nn.Module, prepare: Callable[[Tensor], Tensor], stride: int) -> None:
    """Set the stride of a timm model's last stage.

    Args:
        prepare: Images (N,3,H,W) in [0,1] -> the backbone's input.
        stride: With 1, the last stage has the resolution of the stage before it and no dilation.

    Raises:
        ValueError: The stride is not 1 or 2, or the model has no stride that can be set.
    """
    if stride not in (1, 2):
        raise ValueError(f"last_stride must be 1 or 2, not {stride}")
    architecture = backbone.pretrained_cfg["architecture"]
    try:
        stage = backbone.get_submodule(backbone.feature_info[-1]["module"])
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"last_stride cannot be set for {architecture!r}: timm lists no stages of it"
        ) from error
    strided = [m for m in stage.modules() if getattr(m, "stride", 1) in (2, (2, 2))]
    if not strided:
        raise ValueError(
            f"last_stride cannot be set for {architecture!r}: its last stage has no stride"
        )
    before = _feature_size(backbone, prepare)
    for module in strided:
        module.stride = (stride, stride) if isinstance(module.stride, tuple) else stride
        if stride == 1 and isinstance(module, nn.AvgPool2d):
            module.kernel_size = 1  # it pooled only to reduce the resolution
    if stride == 1 and _feature_size(backbone, prepare) != [2 * size for size in before]:
        raise ValueError(f"last_stride=1 does not double the last feature map of {architecture!r}")


@torch.no_grad()
def _feature_size(backbone: nn.Module, prepare: Callable[[Tensor], Tensor]) -> list[int]:
    training = backbone.training
    size = backbone.eval().forward_features(prepare(torch.zeros(1, 3, 64, 64))).shape[2:]
    backbone.train(training)
    return list(size)
