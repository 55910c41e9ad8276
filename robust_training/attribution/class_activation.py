"""Class activation maps: the evidence for a class at each position of the last feature map."""

import torch
from torch import Tensor

from robust_training.models.classifier import Classifier, evaluation_mode


def class_activation(
    model: Classifier, image: Tensor, label: Tensor, *, create_graph: bool = False
) -> Tensor:
    """Return class activation maps (Zhou et al., CVPR 2016), signed, (N,h,w) of the last features.

    The weight of a channel is the mean gradient of the class logit, as in Grad-CAM. If the head is
    pooling and one linear layer, these weights equal the weights of CAM, up to a factor.

    Args:
        image: (N,3,H,W) in [0,1].
        label: (N,).
        create_graph: Whether the maps will be differentiated with respect to the image.

    Raises:
        ValueError: the network has no spatial feature map.
    """
    backbone = model.backbone
    if not _has_interface(model):
        raise ValueError(
            f"the last feature map of {model.architecture} is not known: use gradient maps, or "
            "give the network timm's methods forward_features and forward_head"
        )
    with torch.set_grad_enabled(create_graph):
        features = backbone.forward_features(model.prepare(image))
    if not _is_spatial(features, model):
        raise ValueError(
            f"{model.architecture} has no (N,C,h,w) feature map for a class activation map; use "
            "gradient maps"
        )
    if not features.requires_grad:
        features.requires_grad_()
    with torch.enable_grad():
        logit = backbone.forward_head(features).gather(1, label[:, None]).sum()
        (gradient,) = torch.autograd.grad(logit, features, create_graph=create_graph)
    maps = (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1)
    return maps if create_graph else maps.detach()


@torch.no_grad()
def has_class_activation(model: Classifier) -> bool:
    """Whether the network has a spatial feature map."""
    if not _has_interface(model):
        return False
    image = torch.zeros_like(model.mean).expand(1, 3, model.image_size, model.image_size)
    with evaluation_mode(model):  # or BatchNorm's statistics would follow this image
        return _is_spatial(model.backbone.forward_features(model.prepare(image)), model)


def _has_interface(model: Classifier) -> bool:
    return all(hasattr(model.backbone, name) for name in ("forward_features", "forward_head"))


def _is_spatial(features: Tensor, model: Classifier) -> bool:
    if features.ndim != 4:
        return False
    return model.own is not None or features.shape[1] == model.backbone.num_features
