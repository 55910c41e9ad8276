"""Saves classifiers as timm's model folders, and loads them."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import nn

from robust_training.atomic_io import new_folder, write_bytes
from robust_training.models.classifier import Classifier
from robust_training.models.creating import checked, wrap_own, wrap_timm
from robust_training.models.log_gradient import LogGradient
from robust_training.models.own_network import build_network
from robust_training.models.weights import load_weights
from robust_training.private_api import save_config_for_hf


def save_model(model: Classifier, folder: str | os.PathLike) -> None:
    """Write a timm model folder: model.safetensors and config.json.

    A network that is not timm's has the same files, but only `load_model` opens them.

    `timm.create_model("local-dir:<folder>", pretrained=True)` opens it and gives the same logits
    for normalised images. timm has no last_stride=1 and no log_gradient: only `load_model` restores
    these, and the folder's README.md contains a note. Readers never find an incomplete folder. If
    a folder of the same network exists, it stays complete at every moment.
    """
    config = {"last_stride": model.last_stride} if model.last_stride else {}
    if model.log_gradient is not None:
        config["log_gradient"] = dataclasses.asdict(model.log_gradient)
    channels = 3 if model.log_gradient is None else model.log_gradient.channels
    if model.class_names:
        config["label_names"] = list(model.class_names)
    with new_folder(Path(folder), replace=True) as new:
        # clones, because safetensors refuses tensors that share memory
        state = {
            name: each.clone(memory_format=torch.contiguous_format)
            for name, each in model.backbone.state_dict().items()
        }
        write_bytes(new / "model.safetensors", safetensors.torch.save(state, {"format": "pt"}))
        if model.own is not None:
            config |= {
                "class_path": model.own.path,
                "num_classes": model.num_classes,
                "mean": model.mean.flatten().tolist(),
                "std": model.std.flatten().tolist(),
                "image_size": model.image_size,
            }
            (new / "config.json").write_text(json.dumps(config, indent=2))
        else:
            save_config_for_hf(
                model.backbone,
                str(new / "config.json"),
                model_config=config,
                data_config={
                    "input_size": (channels, model.image_size, model.image_size),
                    # timm's transforms then show the network the whole frame, as training here does
                    "crop_pct": 1.0,
                    "crop_mode": "squash",
                    "interpolation": "bilinear",
                },
            )
        (new / "README.md").write_text(_card(model))


def _card(model: Classifier) -> str:
    """Return the text of the folder's README.md, which the hub shows as the model's page."""
    loading = "load it with `robust_training.load_model`.\n"
    if model.own is not None:
        return (
            f"---\ntags: [image-classification]\n---\n# {model.architecture}, {model.num_classes} "
            f"classes\n\nIt is not a timm model: {loading}"
        )
    notes = []
    if model.last_stride == 1:
        notes.append(
            "Its last stage has stride 1. timm has no such option, so plain timm gives other "
            f"logits; {loading}"
        )
    if model.log_gradient is not None:
        notes.append(
            f"It takes the {model.log_gradient.channels} channels of {model.log_gradient}, not "
            f"RGB. timm has no such option, so plain timm opens only the backbone; {loading}"
        )
    else:
        notes.append("Normalise images in [0,1] with mean and std of config.json first.\n")
    return (
        "---\nlibrary_name: timm\ntags: [image-classification, timm]\n---\n"
        f"# {model.architecture}, {model.num_classes} classes\n\n"
        '    timm.create_model("local-dir:<this folder>", pretrained=True)\n\n' + "\n".join(notes)
    )


def load_model(folder: str | os.PathLike, network: nn.Module | None = None) -> Classifier:
    """Load the classifier that `save_model` wrote, or any timm model folder, for evaluation.

    Args:
        network: A network that is not timm's and cannot be made from its class path and num_classes
            alone. Its weights are replaced by those in the folder.

    Raises:
        ValueError: there is no such folder, config.json or weights are missing, a setting is not
            known, or the weights do not fit.
    """
    folder = Path(folder)
    if not folder.exists():
        raise ValueError(f"{folder} is not a model folder: there is no such folder")
    config_file, weights = folder / "config.json", folder / "model.safetensors"
    for file in (config_file, weights):
        if not file.is_file():
            raise ValueError(f"{folder} is not a model folder: there is no {file.name} in it")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        if "class_path" in config:
            return _load_own(config, weights, network)
        if network is not None:
            raise ValueError("it is a timm model: leave out the network")
        backbone = timm.create_model(f"local-dir:{folder}", pretrained=False)
        settings = config.get("log_gradient", config.get("front"))  # its name in older folders
        log_gradient = None if settings is None else LogGradient(**settings)
        names = config.get("label_names")
        model = checked(wrap_timm(backbone, log_gradient, config.get("last_stride"), None, names))
    except Exception as error:  # timm raises many kinds for a damaged file
        reason = error if str(error) else type(error).__name__
        raise ValueError(f"cannot build the model of {config_file}: {reason}") from error
    load_weights(backbone, weights)
    return model.eval()


def _load_own(config: dict[str, Any], weights: Path, network: nn.Module | None) -> Classifier:
    path = config["class_path"]
    try:
        own = build_network(path, config["num_classes"]) if network is None else network
        load_weights(own, weights)
    except ValueError as error:
        advice = "if it needs other arguments, build it yourself: load_model(folder, network)"
        raise ValueError(f"{error}; {advice}" if network is None else error) from error
    settings = (config[name] for name in ("mean", "std", "image_size"))
    return wrap_own(own.eval(), path, *settings, config.get("label_names")).eval()
