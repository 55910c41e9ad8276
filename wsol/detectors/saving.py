"""A detector's folder: a timm model folder, the head, and the settings."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from robust_training.atomic_io import new_folder
from robust_training.models.saving import load_model, save_model
from wsol.data.text_files import read_json
from wsol.detectors.base import Detector, Network

_SETTINGS, _HEAD = "detector.json", "head.safetensors"


def save_detector(
    network: Network, folder: str | os.PathLike, texts: Mapping[str, str] | None = None
) -> None:
    """Writes the backbone like `save_model`, and the head and settings into the same folder.

    The folder appears complete or not at all. The backbone loses its classifier head.

    Args:
        texts: Further files for the folder: name -> content.

    Raises:
        ValueError: the folder exists already.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists already; name another folder")
    network.backbone.backbone.reset_classifier(0)
    network.backbone.class_names = None
    kind, settings = type(network.settings).__name__, dataclasses.asdict(network.settings)
    about = {"kind": kind, "settings": settings, "class_names": network.class_names}
    with new_folder(folder, replace=True) as new:
        save_model(network.backbone, new)
        safetensors.torch.save_file(_head(network), new / _HEAD, {"format": "pt"})
        own = {_SETTINGS: json.dumps(about, indent=2), "README.md": _card(kind, network)}
        for name, text in {**(texts or {}), **own}.items():
            (new / name).write_text(text, encoding="utf-8")


def is_detector(folder: str | os.PathLike) -> bool:
    return (Path(folder) / _SETTINGS).is_file()


def load_detector(folder: str | os.PathLike) -> Network:
    """Loads a detector that `save_detector` wrote, in evaluation mode.

    Raises:
        ValueError: a file is missing, is damaged, or belongs to another kind of detector. The
            message names the file.
    """
    folder = Path(folder)
    file, weights = folder / _SETTINGS, folder / _HEAD
    for needed in (file, weights):
        if not needed.is_file():
            raise ValueError(f"{folder} is not a detector's folder: no {needed.name} in it")
    backbone = load_model(folder)
    try:
        about = read_json(file)
        settings = _kind(about["kind"])(**about["settings"])
        network = settings.build(backbone, _names(about["class_names"]))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = f"no {error} in it" if isinstance(error, KeyError) else error
        raise ValueError(f"cannot build a detector from {file}: {reason}") from error
    try:
        head = safetensors.torch.load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"cannot read weights from {weights}: {error}") from error
    shapes = [{name: each.shape for name, each in part.items()} for part in (_head(network), head)]
    wrong = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
    if wrong:
        raise ValueError(f"{weights} does not fit {file}: {', '.join(wrong[:5])}")
    broken = sorted(name for name in head if not head[name].isfinite().all())
    if broken:
        raise ValueError(f"{weights} has numbers that are not finite: {', '.join(broken[:5])}")
    network.load_state_dict(head, strict=False)
    return network.eval()


def _kind(name: str) -> type[Detector]:
    kinds = {kind.__name__: kind for kind in Detector.__subclasses__()}
    if name not in kinds:
        raise ValueError(
            f"no kind {name!r} among {', '.join(sorted(kinds))}: import the module of your own kind"
        )
    return kinds[name]


def _names(names: object) -> list[str]:
    if not (isinstance(names, list) and {*map(type, names)} == {str}):
        raise ValueError("class_names is not a list of texts")
    if len(set(names)) < len(names):
        raise ValueError("class_names lists a name twice")
    return names


def _head(network: Network) -> dict[str, Tensor]:
    """The network's state without the backbone, which may be in several parts of the network."""
    shared = {id(each) for each in network.backbone.state_dict(keep_vars=True).values()}
    state = network.state_dict(keep_vars=True)
    own = {name: each.detach() for name, each in state.items() if id(each) not in shared}
    return {name: each.contiguous() for name, each in own.items()}  # channels_last is not saved


def _card(kind: str, network: Network) -> str:
    architecture = network.backbone.architecture
    return (
        "---\nlibrary_name: timm\ntags: [object-detection, timm]\n---\n"
        f"# {kind} on {architecture}\n\n"
        "    wsol.Localizer.load(<this folder>).predict(<images>)  # boxes\n"
        '    timm.create_model("local-dir:<this folder>", pretrained=True)  # its backbone\n'
    )
