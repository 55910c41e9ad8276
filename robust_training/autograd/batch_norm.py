"""Temporary states of a model: the statistics of BatchNorm, and weights without gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
BatchNormMode = Literal["update", "batch", "running"]


@contextmanager
def batch_norm(model: nn.Module, mode: BatchNormMode) -> Iterator[None]:
    """Set the statistics that BatchNorm layers in training mode use inside the `with`.

    "update" uses the batch's statistics and updates the running statistics (ordinary training).
    "batch" uses the batch's statistics and does not change the running statistics. "running" uses
    the running statistics, as in evaluation.
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
    """Keep the running statistics of every BatchNorm layer that runs inside the `with`.

    Layers in training mode use the batch's statistics.
    """
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
def attack_mode(model: nn.Module, mode: BatchNormMode) -> Iterator[None]:
    """Disable gradients of weights inside the `with`, and set the mode of BatchNorm."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with batch_norm(model, mode):
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
