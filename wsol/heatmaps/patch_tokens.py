"""Patch tokens of Vision Transformers, as `timm.models.vision_transformer` and `eva` build them."""

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from robust_training.models.classifier import Classifier
from wsol.heatmaps.heatmap import min_max, private_copy


def last_block(model: Classifier) -> nn.Module | None:
    """Returns the last attention block over patch tokens. None if the network has no such block."""
    if not hasattr(model.backbone, "num_prefix_tokens"):
        return None
    block = model.backbone.blocks[-1]
    return block if hasattr(getattr(block, "attn", None), "k_norm") else None


def require_patch_tokens(model: Classifier) -> None:
    """Raises ValueError if the network has no patch tokens."""
    if last_block(model) is None:
        raise ValueError(
            f"{model.architecture} has no patch tokens; this heatmap method needs a Vision "
            "Transformer"
        )


def patch_keys(model: Classifier, image: Tensor) -> Tensor:
    """Computes the keys (N,C,h,w) of the last attention block, with the channels of all its heads:
    one for each patch of images (N,3,H,W) in [0,1]. Raises ValueError if the network has no patch
    tokens.

    Position embeddings that are rotations of the keys (EVA, DINOv3) are not included."""
    require_patch_tokens(model)
    network = private_copy(model)
    found: list[Tensor] = []
    last_block(network).attn.k_norm.register_forward_hook(
        lambda module, inputs, keys: found.append(keys)
    )
    with torch.no_grad():
        network(image)
    return to_grid(found[0].transpose(1, 2).flatten(2), model, image)


def to_grid(tokens: Tensor, model: Classifier, image: Tensor) -> Tensor:
    """Leaves out the class token and registers: (N,tokens,C) -> (N,C,h,w), one for each patch."""
    patches = tokens[:, model.backbone.num_prefix_tokens :]
    count, (height, width) = patches.shape[1], image.shape[2:]
    rows = round((count * height / width) ** 0.5)
    return patches.transpose(1, 2).unflatten(2, (rows, count // rows))


def patch_heatmaps(maps: np.ndarray, image: Tensor) -> np.ndarray:
    """Enlarges maps of patches (N,h,w) to the images' size, bilinear, and stretches them."""
    size = image.shape[:-3:-1]
    return min_max(np.stack([cv2.resize(each, size) for each in np.asarray(maps, np.float64)]))
