"""How a model behaves for a while: BatchNorm's statistics, and weights that need no gradient."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
BatchNormMode = Literal["update", "batch", "running"]


@contextmanager
def batch_norm(model: nn.Module, mode: BatchNormMode) -> Iterator[None]:
    """How BatchNorm layers in training mode behave inside the `with`.

    "update": the batch's statistics, and running ones follow (ordinary training). "batch": the
    batch's, running ones left alone. "running": the running ones, as in evaluation.
    """
    layers = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.training]
    tracking = [layer for layer in layers if layer.track_running_stats]
    if mode == "batch":
        for layer in tracking:
            layer.track_running_stats = False
    elif mode == "running":
        for layer in layers:
            layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
        for layer in tracking:
            layer.track_running_stats = True


@contextmanager
def running_statistics_kept() -> Iterator[None]:
    """BatchNorm layers in training mode that run inside the `with`, of whatever model, use the
    batch's statistics and leave running ones alone."""
    changed: list[nn.Module] = []

    def stop_tracking(module: nn.Module, _) -> None:
        if isinstance(module, BATCH_NORMS) and module.training and module.track_running_stats:
            module.track_running_stats = False
            changed.append(module)

    handle = register_module_forward_pre_hook(stop_tracking)
    try:
        yield
    finally:
        handle.remove()
        for module in changed:
            module.track_running_stats = True


@contextmanager
def under_attack(model: nn.Module, mode: BatchNormMode) -> Iterator[None]:
    """Weights need no gradient inside the `with`, and BatchNorm behaves as `mode` says."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with batch_norm(model, mode):
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
