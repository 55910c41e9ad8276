"""timm classifiers that take images in [0,1]: create, save, load."""

import dataclasses
import difflib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import timm
import torch
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from robust_training.atomic_io import replace_folder, write_bytes
from robust_training.models.last_stride import set_last_stride
from robust_training.models.log_gradient import LogGradient
from robust_training.models.weights import head_parameters, load_weights, require_channels

LARGEST = 8192  # side of a network's input in pixels


class Classifier(nn.Module):
    """A timm model behind its own normalisation, or behind a front end in place of it.

    Images (N,3,H,W) in [0,1] -> logits (N,classes).

    Attributes:
        backbone: The plain timm model.
        mean, std: (1,3,1,1), from the model's pretrained_cfg; 0 and 1 with a front end.
        front: The front end, or None.
        image_size: Side of the square images it is meant for, in pixels.
        last_stride: As given to `create_model`.
        class_names: One per class, or None where they are not known.
    """

    def __init__(
        self,
        backbone: nn.Module,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        *,
        front: LogGradient | None = None,
        image_size: int = 224,
        last_stride: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if front is not None and (any(mean) or any(value != 1 for value in std)):
            raise ValueError(
                "a front end takes images in [0,1]: leave mean and std at their defaults"
            )
        self.backbone = backbone
        self.front = front
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
        return self.backbone.num_classes

    def normalize(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std

    def prepare(self, image: Tensor) -> Tensor:
        """Everything before the backbone: normalisation, then the front end where there is one."""
        normalized = self.normalize(image)
        return normalized if self.front is None else self.front(normalized)

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone(self.prepare(image))


def create_model(
    name: str,
    num_classes: int,
    *,
    pretrained: bool = False,
    weights: str | os.PathLike | None = None,
    last_stride: int | None = None,
    image_size: int | None = None,
    front: LogGradient | None = None,
) -> Classifier:
    """A timm classifier with normalisation inside.

    A head that no weights fill starts at zero: timm's own initialisation of some heads starts at
    losses above 6 and wrecks pretrained features.

    Args:
        name: Any timm model name, `hf-hub:...` or `local-dir:...`.
        num_classes: Number of logits.
        pretrained: Download timm's weights.
        weights: Local .safetensors or .pth file instead; its head is dropped where it has another
            number of classes.
        last_stride: 1 keeps the last stage at the resolution before it, undilated, as in ART's
            ResNet-50.
        image_size: Side of the images in pixels; None is the size of timm's own weights. Models
            with position embeddings (ViT, Swin) are built for it.
        front: Takes the place of the normalisation. The backbone is then built for its channels,
            and takes no weights that were trained on RGB.

    Raises:
        ValueError: unknown name (with the nearest ones), weights that do not fit (which tensors),
            or a last_stride that this model has no place for.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {num_classes}")
    if front is not None and pretrained:
        raise ValueError(
            f"timm's weights are for RGB, and a front end's backbone takes {front.channels} "
            "channels: train from scratch (pretrained=False) or give weights trained with it"
        )
    backbone = _create_backbone(name, num_classes, pretrained, image_size, front)
    head_filled = pretrained and backbone.pretrained_cfg.get("num_classes") == num_classes
    if weights is not None:
        head_filled = load_weights(backbone, weights)
    if not head_filled:
        for parameter in head_parameters(backbone):
            nn.init.zeros_(parameter)
    return _wrap(backbone, front, last_stride, image_size)


def _create_backbone(
    name: str,
    num_classes: int,
    pretrained: bool,
    image_size: int | None,
    front: LogGradient | None,
) -> nn.Module:
    local = ":" in name  # hf-hub:, local-dir:
    if not local and not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"timm has no model {name!r}{hint}")
    fixed = not local and timm.get_pretrained_cfg(name, allow_unregistered=True)
    built_for = {"img_size": image_size} if image_size and fixed and fixed.fixed_input_size else {}
    if front is not None:
        built_for["in_chans"] = front.channels
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **built_for)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"timm could not create {name!r}: {error}") from error


def wrap_model(
    backbone: nn.Module, *, image_size: int | None = None, class_names: Sequence[str] | None = None
) -> Classifier:
    """Any classifier of `timm.create_model` behind its own normalisation; weights are not copied.

    Args:
        image_size: Side of the images in pixels: `img_size` where it was built with one; None is
            that of its pretrained_cfg.
        class_names: None are those that a model folder or a hub's model came with.

    Raises:
        ValueError: it is no timm classifier, or these do not fit it.
    """
    if not (getattr(backbone, "pretrained_cfg", None) and hasattr(backbone, "num_classes")):
        raise ValueError(f"{type(backbone).__name__} is no classifier of timm.create_model")
    names = class_names or backbone.pretrained_cfg.get("label_names")
    return _checked(_wrap(backbone, None, None, image_size, names and list(names)))


def _wrap(
    backbone: nn.Module,
    front: LogGradient | None,
    last_stride: int | None,
    image_size: int | None,
    class_names: Sequence[str] | None = None,
) -> Classifier:
    config = backbone.pretrained_cfg
    normalization = {"mean": config["mean"], "std": config["std"]} if front is None else {}
    model = Classifier(
        backbone,
        **normalization,
        front=front,
        image_size=config["input_size"][-1] if image_size is None else image_size,
        last_stride=last_stride,
        class_names=class_names,
    )
    if last_stride is not None:
        set_last_stride(backbone, model.prepare, last_stride)
    return model


def save_model(model: Classifier, folder: str | os.PathLike) -> None:
    """Write a timm model folder: model.safetensors and config.json.

    `timm.create_model("local-dir:<folder>", pretrained=True)` opens it with the same logits for
    normalised images. What timm cannot express is last_stride=1 and a front end: there only
    `load_model` restores them, and the folder's README.md says so. The folder appears whole or not
    at all; where there is one of the same network already, it is whole all the time.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = {"last_stride": model.last_stride} if model.last_stride else {}
    if model.front is not None:
        config["front"] = dataclasses.asdict(model.front)
    if model.class_names:
        config["label_names"] = list(model.class_names)
    channels = 3 if model.front is None else model.front.channels
    new = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    try:
        new.mkdir()
        state = {k: v.contiguous() for k, v in model.backbone.state_dict().items()}
        write_bytes(new / "model.safetensors", safetensors.torch.save(state, {"format": "pt"}))
        save_config_for_hf(
            model.backbone,
            str(new / "config.json"),
            model_config=config,
            data_config={
                "input_size": (channels, model.image_size, model.image_size),
                "crop_pct": 1.0,
            },
        )
        (new / "README.md").write_text(_card(model))
        replace_folder(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _card(model: Classifier) -> str:
    architecture = model.backbone.pretrained_cfg["architecture"]
    stride = (
        "\nIts last stage has stride 1. timm cannot express that, so plain timm gives other logits;"
        " load it with `robust_training.models.classifier.load_model`.\n"
        if model.last_stride == 1
        else ""
    )
    front = (
        f"\nIt takes the {model.front.channels} channels of {model.front}, not RGB. timm cannot "
        "express that, so plain timm opens the backbone alone; load it with "
        "`robust_training.models.classifier.load_model`.\n"
        if model.front is not None
        else ""
    )
    mean = "\nImages in [0,1] pass config.json's mean and std first.\n" if not front else ""
    return (
        f"---\nlibrary_name: timm\ntags: [image-classification, timm]\n---\n# {architecture}, "
        f"{model.backbone.num_classes} classes\n{stride}{front}\n"
        '    timm.create_model("local-dir:<this folder>", pretrained=True)\n'
        f"{mean}"
    )


def load_model(folder: str | os.PathLike) -> Classifier:
    """The classifier that `save_model` wrote, or any timm model folder, in evaluation mode.

    Raises:
        ValueError: no folder, no config.json or no weights in it, settings that are not known,
            or weights that do not fit.
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
        backbone = timm.create_model(f"local-dir:{folder}", pretrained=False)
        front = LogGradient(**config["front"]) if "front" in config else None
        labels = config.get("label_names")
        model = _checked(_wrap(backbone, front, config.get("last_stride"), None, labels))
    except Exception as error:  # whatever a damaged file makes timm raise
        reason = error if str(error) else type(error).__name__
        raise ValueError(f"cannot build the model of {config_file}: {reason}") from error
    load_weights(backbone, weights)
    return model.eval()


def _checked(model: Classifier) -> Classifier:
    """Refuse what timm takes as it comes, and what would make wrong maps later."""
    if not (model.mean.isfinite().all() and model.std.isfinite().all() and (model.std > 0).all()):
        raise ValueError("mean and std must be finite, std positive")
    if not (isinstance(model.image_size, int) and 1 <= model.image_size <= LARGEST):
        raise ValueError(f"images of {model.image_size!r:.40} pixels; 1 to {LARGEST} are possible")
    require_channels(model.backbone, 3 if model.front is None else model.front.channels)
    names, classes = model.class_names, model.backbone.num_classes
    if names is not None and not (type(names) is list and [*map(type, names)] == classes * [str]):
        raise ValueError(f"label_names must be {classes} texts, one for each class")
    model.normalize(torch.zeros(1, 3, 1, 1))
    return model
