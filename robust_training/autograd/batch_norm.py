"""Temporary changes of a model: statistics of BatchNorm, and weights without gradients."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
BatchNormMode = Literal["update", "batch", "running"]


@contextmanager
def attribute_set(owners: Iterable[object], name: str, value: object) -> Iterator[None]:
    """Set an attribute of several objects inside the `with`."""
    before = [(owner, getattr(owner, name)) for owner in owners]
    for owner, _ in before:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, kept in before:
            setattr(owner, name, kept)


@contextmanager
def batch_norm(model: nn.Module, mode: BatchNormMode) -> Iterator[None]:
    """Set the statistics that BatchNorm layers in training mode use inside the `with`.

    "update" uses the batch's statistics and updates the running statistics (ordinary training).
    "batch" uses the batch's statistics and does not change the running statistics. "running" uses
    the running statistics, as in evaluation: a copy of them, because the backward pass needs them
    again, and a pass in between may update them.
    """
    layers = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.training]
    tracking = [layer for layer in layers if layer.track_running_stats]
    changed = {
        "update": nullcontext(),
        "batch": attribute_set(tracking, "track_running_stats", False),
        "running": _evaluated(layers),
    }
    with changed[mode]:
        yield


@contextmanager
def _evaluated(layers: Iterable[nn.Module]) -> Iterator[None]:
    copies = {
        layer: {name: value.clone() for name, value in running_statistics(layer).items()}
        for layer in layers
    }
    with attribute_set(copies, "training", False), statistics_set(copies):
        yield


def running_statistics(layer: nn.Module) -> dict[str, Tensor]:
    """Return the running statistics of a BatchNorm layer by their names; none if it has none."""
    found = {name: getattr(layer, name) for name in ("running_mean", "running_var")}
    return {name: value for name, value in found.items() if value is not None}


@contextmanager
def statistics_set(statistics: Mapping[nn.Module, Mapping[str, Tensor]]) -> Iterator[None]:
    """Set the `running_statistics` of BatchNorm layers inside the `with`."""
    with ExitStack() as stack:
        for layer, values in statistics.items():
            for name, value in values.items():
                stack.enter_context(attribute_set([layer], name, value))
        yield


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
    with attribute_set(trained, "requires_grad", False), batch_norm(model, mode):
        yield
