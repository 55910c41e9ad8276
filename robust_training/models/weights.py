"""Weights from files, read without running code and checked against the model."""

import os
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn


def load_weights(backbone: nn.Module, path: str | os.PathLike) -> bool:
    """Load a .safetensors or .pth state dict. Return whether it has weights of the head.

    Code in a file is never run. Prefixes that wrappers add (`module.`, `model.`, `backbone.`) are
    removed. A head with another number of classes is not loaded.

    Raises:
        ValueError: The file is missing, cannot be read, or does not fit (the message lists the
            tensors).
    """
    state = _read_state(Path(path))
    own = backbone.state_dict()
    heads = _layers(backbone, "classifier")
    for layer in _layers(backbone, "first_conv"):
        _check_channels(path, state.get(f"{layer}.weight"), own.get(f"{layer}.weight"))
    dropped = {
        name
        for name, tensor in state.items()
        if name.rpartition(".")[0] in heads and name in own and own[name].shape != tensor.shape
    }
    kept = {name: tensor for name, tensor in state.items() if name not in dropped}
    wrong = [
        f"{name} is {tuple(tensor.shape)} here, {tuple(own[name].shape)} in the model"
        for name, tensor in kept.items()
        if name in own and own[name].shape != tensor.shape
    ]
    wrong += [
        f"{name} is missing" for name in own if name not in kept and not _optional(name, heads)
    ]
    wrong += [f"{name} is not in the model" for name in kept if name not in own]
    wrong += [f"{name} has numbers that are not finite" for name in kept if _broken(kept[name])]
    if wrong:
        listed = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ValueError(f"{path} does not fit {backbone.pretrained_cfg['architecture']}: {listed}")
    backbone.load_state_dict(kept, strict=False)
    return all(name in kept for name in own if name.rpartition(".")[0] in heads)


def head_parameters(backbone: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the classifier layers."""
    heads = _layers(backbone, "classifier")
    return [p for name, p in backbone.named_parameters() if name.rpartition(".")[0] in heads]


def check_channels(backbone: nn.Module, given: int) -> None:
    """Raise ValueError if the first layer cannot take images of `given` channels.

    Some first layers fold pixels into channels, so their number of channels is a multiple.
    """
    own = backbone.state_dict()
    for layer in _layers(backbone, "first_conv"):
        weight = own.get(f"{layer}.weight")
        if weight is not None and weight.ndim > 1 and weight.shape[1] % given:
            raise ValueError(f"the network takes images of {weight.shape[1]} channels, not {given}")


def _layers(backbone: nn.Module, key: str) -> tuple[str, ...]:
    """Return names of layers from timm's pretrained_cfg, for example ("head.fc",)."""
    names = backbone.pretrained_cfg.get(key) or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _check_channels(path: str | os.PathLike, given: Tensor | None, own: Tensor | None) -> None:
    """Raise ValueError if the first layer was trained on another number of channels."""
    if given is None or own is None or given.ndim != own.ndim or given.shape[1] == own.shape[1]:
        return
    raise ValueError(
        f"{path} was trained on {given.shape[1]} channels and this model's backbone takes "
        f"{own.shape[1]} (RGB has 3, log_gradient 2): train from scratch, or give weights trained "
        "on the same input"
    )


def _broken(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(tensor.isfinite().all())


def _optional(name: str, heads: tuple[str, ...]) -> bool:
    return name.rpartition(".")[0] in heads or name.endswith("num_batches_tracked")


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for key in ("state_dict", "model"):
                state = state[key] if isinstance(state.get(key), dict) else state
    except Exception as error:  # for a damaged file, the readers raise many kinds of errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"cannot read weights from {path}: {reason}") from error
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict of tensors")
    for prefix in ("module.", "model.", "backbone."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
