"""Weights from files, read without running code and checked against the model."""

import os
import pickle
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

_PLAIN = "save the weights alone: torch.save(model.state_dict(), 'weights.pth')"


def load_weights(backbone: nn.Module, path: str | os.PathLike) -> bool:
    """Load weights from a .safetensors file or a file of torch.save.

    Return whether the file has weights of the head.

    The file may be a state dict, a training checkpoint that contains one, or a whole pickled model.
    Code in a file is never run. The weights are found by the names of their tensors, so a wrapper's
    prefix (`module.`, `model.`, `_orig_mod.`) does not matter. If a file has weights and their
    moving average (EMA), the average is loaded, as timm does. A head with another number of classes
    is not loaded. Raises ValueError if the file is missing, cannot be read, has several sets of
    weights, or does not fit (the message lists the tensors)."""
    own = backbone.state_dict()
    state = _read_state(Path(path), own)
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
        config = getattr(backbone, "pretrained_cfg", {})
        name = config.get("architecture", type(backbone).__name__)
        raise ValueError(f"{path} does not fit {name}: {listed}")
    backbone.load_state_dict(kept, strict=False)
    return all(name in kept for name in own if name.rpartition(".")[0] in heads)


def head_parameters(backbone: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the classifier layers."""
    heads = _layers(backbone, "classifier")
    return [p for name, p in backbone.named_parameters() if name.rpartition(".")[0] in heads]


def _layers(backbone: nn.Module, key: str) -> tuple[str, ...]:
    """Return names of layers from timm's pretrained_cfg, for example ("head.fc",)."""
    names = getattr(backbone, "pretrained_cfg", {}).get(key) or ()
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


def _read_state(path: Path, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors of a model whose state dict is `own`, under the names that it has there."""
    if not path.is_file():
        raise ValueError(f"there is no weights file {path}")
    try:
        is_plain = path.suffix == ".safetensors"
        content = safetensors.torch.load_file(path) if is_plain else _unpickle(path)
        tensors = dict(_tensors(content, "", set()))
    except Exception as error:  # for a damaged file, the readers raise many kinds of errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"cannot read weights from {path}: {reason:.200}; {_PLAIN}") from error
    if not tensors:
        keys = ", ".join(map(repr, content)) if isinstance(content, Mapping) else ""
        inside = f"{type(content).__name__} {keys:.90}".strip()
        raise ValueError(
            f"cannot read weights from {path}: there is no tensor in its {inside}; {_PLAIN}"
        )
    prefix = _prefix(path, tensors, own)
    return {name[len(prefix) :]: each for name, each in tensors.items() if name.startswith(prefix)}


class _Object:
    """Stands for any class or function that a file names. A call gives a mapping of its arguments,
    to which the reader adds the items and attributes of the object."""

    def __new__(cls, *arguments: Any) -> OrderedDict:
        return OrderedDict(enumerate(arguments))


class _Opaque:
    """Stands for objects whose state is no mapping. The state is dropped."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


_INERT: dict[str, type] = {
    "argparse.Namespace": _Object,
    "functools.partial": _Opaque,
    "numpy.dtype": _Opaque,
    "numpy.core.multiarray._reconstruct": _Opaque,
    "numpy._core.multiarray._reconstruct": _Opaque,
}


def _unpickle(path: Path) -> Any:
    """Read a file of torch.save. Objects other than tensors and plain values become mappings."""
    names: list[str] = []
    try:
        if zipfile.is_zipfile(path):  # torch cannot list what the files of its early versions name
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        inert = dict.fromkeys(names, _Object) | _INERT
        with torch.serialization.safe_globals([(each, name) for name, each in inert.items()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its text advises to run the file's code
        inside = f"objects {names!s:.90}" if names else "objects"
        raise ValueError(
            f"it is damaged, or contains Python {inside} that cannot be read without running code"
        ) from error


def _tensors(tree: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested mappings and modules, with dotted names."""
    if isinstance(tree, Tensor):
        yield name, tree
    elif isinstance(tree, Mapping) and id(tree) not in seen:
        seen.add(id(tree))
        module = getattr(tree, "__dict__", {})  # of a pickled module
        parts = dict(tree)
        for kind in ("_parameters", "_buffers", "_modules"):
            parts |= module.get(kind) or {}
        unsaved = module.get("_non_persistent_buffers_set") or ()
        for key in (key for key in parts if key not in unsaved):
            yield from _tensors(parts[key], f"{name}.{key}" if name else str(key), seen)


def _prefix(path: Path, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return what stands before the model's own names, or "" if no name is one of its own."""
    counts = Counter(
        name[:start]
        for name in tensors
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", name)))
        if name[start:] in own
    )
    best = [prefix for prefix, count in counts.items() if count == max(counts.values())]
    averaged = [prefix for prefix in best if re.search(r"(\b|_)ema(\b|_)", prefix)]
    found = averaged if len(averaged) == 1 else best
    if len(found) > 1:
        names = ", ".join(prefix or "its top level" for prefix in found)
        raise ValueError(f"{path} has several sets of weights for this model, at {names}; {_PLAIN}")
    return found[0] if found else ""
