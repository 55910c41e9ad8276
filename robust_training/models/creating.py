"""Creates classifiers by timm's names, and wraps other networks."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from robust_training.class_path import path_of_class
from robust_training.models.classifier import LARGEST, Classifier, evaluation_mode
from robust_training.models.log_gradient import LogGradient
from robust_training.models.own_network import OwnNetwork, build_network, is_class_path
from robust_training.models.weights import head_parameters, load_weights

_LARGEST_TRIAL = 1024  # a trial with larger images would need too much memory


def create_model(
    name: str,
    num_classes: int,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    last_stride: int | None = None,
    image_size: int | None = None,
    log_gradient: LogGradient | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """Create a classifier with normalisation inside.

    If no weights are loaded into the head, it starts at zero. With timm's own initialisation of
    some heads, the first loss is above 6, and the first steps then destroy pretrained features.

    Args:
        name: Any timm model name, `hf-hub:...` or `local-dir:...`. Also the class path of a network
            that is not timm's, made with the argument num_classes: `my_module.MyNet`, or
            `torchvision.models.resnet18`.
        num_classes: Number of logits.
        pretrained: Download timm's weights.
        weights: Local .safetensors or .pth file to load instead. Its head is dropped if it has
            another number of classes.
        last_stride: With 1, the last stage has the resolution of the stage before it and no
            dilation, as in ART's ResNet-50.
        image_size: Side of the images in pixels. If None, the size of timm's own weights. Models
            with position embeddings (ViT, Swin) are built for this size.
        log_gradient: Replaces the normalisation. The backbone is then built for its channels, and
            cannot use weights that were trained on RGB.
        mean, std: Three numbers each, for a network that is not timm's (see `wrap_model`).

    Raises:
        ValueError: The name is unknown (the message lists similar names), the weights do not fit
            (the message lists the tensors), or the model does not support a setting.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {num_classes}")
    if log_gradient is not None and pretrained:
        raise ValueError(
            "timm's weights are for RGB, and the backbone behind log_gradient takes "
            f"{log_gradient.channels} channels: train from scratch (pretrained=False), or give "
            "weights trained with log_gradient"
        )
    if not timm.is_model(name.split(".")[0]) and is_class_path(name):
        if pretrained or last_stride is not None or log_gradient is not None:
            raise ValueError(
                f"pretrained, last_stride and log_gradient need a timm model, not {name}"
            )
        network = build_network(name, num_classes)
        model = wrap_own(network, name, mean, std, image_size, None)
        if model.num_classes != num_classes:
            raise ValueError(f"{name} has {model.num_classes} logits, not {num_classes}")
        if weights is not None:
            load_weights(network, weights)
        return model
    backbone = _create_backbone(name, num_classes, pretrained, image_size, log_gradient)
    _require_timms_normalization(mean, std)
    head_filled = pretrained and backbone.pretrained_cfg.get("num_classes") == num_classes
    if weights is not None:
        head_filled = load_weights(backbone, weights)
    if not head_filled:
        for parameter in head_parameters(backbone):
            nn.init.zeros_(parameter)
    return wrap_timm(backbone, log_gradient, last_stride, image_size)


def _create_backbone(
    name: str,
    num_classes: int,
    pretrained: bool,
    image_size: int | None,
    log_gradient: LogGradient | None,
) -> nn.Module:
    local = ":" in name  # hf-hub:, local-dir:
    if not local and not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"timm has no model {name!r}{hint}")
    fixed = not local and timm.get_pretrained_cfg(name, allow_unregistered=True)
    built_for = {"img_size": image_size} if image_size and fixed and fixed.fixed_input_size else {}
    if log_gradient is not None:
        built_for["in_chans"] = log_gradient.channels
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **built_for)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"timm could not create {name!r}: {error}") from error


def wrap_model(
    backbone: nn.Module,
    *,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """Wrap any classifier with its normalisation; weights are shared.

    Args:
        backbone: A float32 network from normalised RGB images (N,3,S,S) to logits (N,classes): of
            `timm.create_model`, of torchvision, or your own. Its modes (training or evaluation) are
            kept. Class activation maps of a network that is not timm's need timm's interface: its
            methods `forward_features` (images -> (N,C,h,w)) and `forward_head` (-> logits).
        image_size: Side of the images in pixels. If the model was built with `img_size`, give the
            same number. If None, the size in timm's pretrained_cfg, or else 224.
        class_names: If None, the names in the model folder or on the hub, if there are any.
        mean, std: Three numbers each. The network takes (image - mean) / std for images in [0,1].
            They must be given if the network is not timm's, and only then.

    Raises:
        ValueError: These settings do not fit the network, or it cannot classify a black image of
            this size.
    """
    if not (getattr(backbone, "pretrained_cfg", None) and hasattr(backbone, "num_classes")):
        return wrap_own(backbone, path_of_class(type(backbone)), mean, std, image_size, class_names)
    _require_timms_normalization(mean, std)
    names = class_names or backbone.pretrained_cfg.get("label_names")
    model = wrap_timm(backbone, None, None, image_size, names and list(names))
    return checked(model.to(next(backbone.parameters()).device))


def _require_timms_normalization(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    if mean is not None or std is not None:
        raise ValueError("a timm model has its own mean and std: leave them out")


def wrap_own(
    network: nn.Module,
    path: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    image_size: int | None,
    class_names: Sequence[str] | None,
) -> Classifier:
    """Wrap a network that is not timm's. Its output for one image gives its number of classes."""
    if mean is None or std is None:
        raise ValueError(
            f"{path} is not a timm model: give its mean and std, for example "
            "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225) for torchvision's weights, or "
            "mean=(0, 0, 0), std=(1, 1, 1) if it takes images in [0,1]"
        )
    size = 224 if image_size is None else image_size
    names = None if class_names is None else list(class_names)
    model = Classifier(
        network,
        [*map(float, mean)],
        [*map(float, std)],
        image_size=size,
        class_names=names,
        own=OwnNetwork(path, num_classes=0, fixed_size=True),
    ).to(next((each.device for each in network.parameters()), None))
    logits = _try(model, size)
    if not (isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == 1):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{path} gives {found} for one image, not logits (1,classes): wrap it in a module that "
            "returns the logits alone"
        )
    try:
        _try(model, size + size // 4)
    except ValueError:
        fixed_size = True
    else:
        fixed_size = False
    model.own = OwnNetwork(path, logits.shape[1], fixed_size)
    return checked(model)


def wrap_timm(
    backbone: nn.Module,
    log_gradient: LogGradient | None,
    last_stride: int | None,
    image_size: int | None,
    class_names: Sequence[str] | None = None,
) -> Classifier:
    config = backbone.pretrained_cfg
    height, width = config["input_size"][1:]
    if image_size is None and height != width:
        raise ValueError(
            f"the network is meant for images of {height} x {width} pixels, and only square images "
            "are possible here: give an image_size"
        )
    normalization = {"mean": config["mean"], "std": config["std"]} if log_gradient is None else {}
    model = Classifier(
        backbone,
        **normalization,
        log_gradient=log_gradient,
        image_size=width if image_size is None else image_size,
        last_stride=last_stride,
        class_names=class_names,
    )
    if last_stride is not None:
        _set_last_stride(model, last_stride)
    return model


def _set_last_stride(model: Classifier, stride: int) -> None:
    """Set the stride of a timm model's last stage, as `create_model` says. Raises ValueError if the
    stride is not 1 or 2, or the model has no stride that can be set."""
    if stride not in (1, 2):
        raise ValueError(f"last_stride must be 1 or 2, not {stride}")
    backbone, refused = model.backbone, f"last_stride cannot be set for {model.architecture!r}"
    try:
        stage = backbone.get_submodule(backbone.feature_info[-1]["module"])
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{refused}: timm lists no stages of it") from error
    strided = [m for m in stage.modules() if getattr(m, "stride", 1) in (2, (2, 2))]
    if not strided:
        raise ValueError(f"{refused}: its last stage has no stride")
    before = _feature_size(model)
    for module in strided:
        module.stride = (stride, stride) if isinstance(module.stride, tuple) else stride
        if stride == 1 and isinstance(module, nn.AvgPool2d):
            module.kernel_size = 1  # it pooled only to reduce the resolution
    if stride == 1 and _feature_size(model) != [2 * size for size in before]:
        raise ValueError(
            f"last_stride=1 does not double the last feature map of {model.architecture!r}"
        )


@torch.no_grad()
def _feature_size(model: Classifier) -> list[int]:
    with evaluation_mode(model):
        image = model.prepare(torch.zeros(1, 3, 64, 64))
        return list(model.backbone.forward_features(image).shape[2:])


def checked(model: Classifier) -> Classifier:
    """Refuse settings that timm accepts and that would fail, or make wrong maps, later."""
    if not (model.mean.isfinite().all() and model.std.isfinite().all() and (model.std > 0).all()):
        raise ValueError("mean and std must be finite, std positive")
    size, names, classes = model.image_size, model.class_names, model.num_classes
    if not (isinstance(size, int) and 1 <= size <= LARGEST):
        raise ValueError(f"image_size must be 1 to {LARGEST} pixels, not {size!r:.40}")
    if names is not None and not (type(names) is list and [*map(type, names)] == classes * [str]):
        raise ValueError(f"label_names must be {classes} texts, one for each class")
    kinds = {p.dtype for p in model.backbone.parameters()} - {torch.float32}
    if kinds:
        raise ValueError(f"the network's weights are {kinds.pop()}: call its .float() first")
    if model.own is None and size <= _LARGEST_TRIAL:
        _try(model, size)
    return model


@torch.no_grad()
def _try(model: Classifier, side: int) -> Tensor:
    """The output for a black image; ValueError if there is none."""
    try:
        with evaluation_mode(model):
            return model(torch.zeros(1, 3, side, side, device=model.device))
    except Exception as error:  # each architecture has its own checks
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the network cannot take RGB images of {side} x {side} pixels ({reason:.150}); it "
            "needs the image_size that it was built for, and in_chans=3"
        ) from error
