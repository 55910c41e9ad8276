"""Deep descriptor transforming: objects by the first principal component of a network's features.

The method needs unlabelled images that share a kind of object, for example the training images of
a data set of birds. It needs no class, so a pretrained network without a trained head will do.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import cv2
import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor

from robust_training.attribution.explanation import Differentiation, Explanation, Maps
from robust_training.models.classifier import Classifier
from wsol.heatmaps.heatmap import Component, HeatmapMethod, min_max, private_copy


@dataclass(frozen=True)
class DDT(HeatmapMethod, Explanation):
    """The position of each descriptor along the first principal component of all descriptors.

    The idea and the name are from Wei et al., Pattern Recognition 2019 (arXiv 1707.06397): what all
    images have in common varies most between object and background. Negative values become 0. The
    map is the same for all classes. Two things differ from the publication, and both matter
    (docs/experiments/cub200.md): the descriptors are divided by the square root of their length,
    and they are the input of the network's last stage, not its output. An attack on maps can change
    it (`MapAttack`).

    Attributes:
        component: From `principal_component`. If None, the method cannot make maps yet.
    """

    is_of_class: ClassVar[bool] = False
    component: Component | None = field(default=None, compare=False, repr=False)

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> np.ndarray:
        with torch.no_grad():
            heights = self._heights(model, image).numpy()
        size = image.shape[:-3:-1]
        enlarged = [cv2.resize(each, size, interpolation=cv2.INTER_CUBIC) for each in heights]
        return min_max(np.maximum(np.stack(enlarged), 0))

    def maps(self, model: Classifier, label: Tensor, how: Differentiation | None = None) -> Maps:
        """The function from images to maps before they are stretched to [0,1].

        Args:
            how: Not used, because no derivative is part of the map.
        """

        def maps(image: Tensor) -> Tensor:
            heights, size = self._heights(model, image)[:, None], image.shape[-2:]
            enlarged = F.interpolate(heights, size, mode="bicubic", align_corners=False)
            return enlarged[:, 0].clamp(min=0).to(image)

        return maps

    def _heights(self, model: Classifier, image: Tensor) -> Tensor:
        """The position of each descriptor along the component: float64 (N,h,w)."""
        found = descriptors(model, image)
        channels = found.shape[1]
        if self.component is None:
            raise ValueError(
                "ddt has no principal component: it needs a run whose training images are there, "
                "or DDT(principal_component(model, images))"
            )
        if channels != len(self.component.mean):
            raise ValueError(
                f"the component of ddt has {len(self.component.mean)} channels, the network's "
                f"descriptors have {channels}: it belongs to another network; delete its ddt.json"
            )
        mean, axis = map(found.new_tensor, (self.component.mean, self.component.axis))
        return torch.einsum("nchw,c->nhw", found - mean[:, None, None], axis)

    def fits(self, model: Classifier) -> bool:
        side = model.image_size
        blank = torch.zeros(1, 3, side, side, device=model.device)
        with torch.no_grad():
            features = _last_stage_input(model, blank)
        # with unequal sides the last dimension holds the channels, as in a Swin Transformer
        return features is not None and features.shape[2] == features.shape[3]

    def with_component(self, find: Callable[[], Component]) -> "DDT":
        return self if self.component else replace(self, component=find())


def principal_component(model: Classifier, images: Iterable[Tensor]) -> Component:
    """Finds the first principal component of a network's `descriptors`.

    The axis points to the side where the middle of the images is, because photographers aim at
    objects.

    Args:
        images: Batches (N,3,H,W) in [0,1] of one size. 100 images are enough: on CUB-200-2011, 50
            give nearly the same score as 600.

    Raises:
        ValueError: there is no image, or the network has no descriptors.
    """
    with torch.no_grad():
        found = [descriptors(model, image).numpy() for image in images]
    if not found:
        raise ValueError("there is no image to find the principal component of ddt")
    every = np.concatenate(found)
    rows = np.moveaxis(every, 1, 3).reshape(-1, every.shape[1])
    mean = rows.mean(axis=0)
    axis = scipy.linalg.svd(rows - mean, full_matrices=False)[2][0]
    if (_middle(every).mean(axis=(0, 2, 3)) - mean) @ axis < 0:
        axis = -axis
    return Component(tuple(mean.tolist()), tuple(axis.tolist()))


def _middle(maps: np.ndarray) -> np.ndarray:
    """The inner half of maps (N,C,h,w) in each direction; everything if they are tiny."""
    top, left = maps.shape[2] // 4, maps.shape[3] // 4
    return maps[:, :, top : maps.shape[2] - top, left : maps.shape[3] - left]


def descriptors(model: Classifier, image: Tensor) -> Tensor:
    """The input of the network's last stage, divided by the square root of its length at each
    position: float64 (N,C,h,w) on the CPU, for images (N,3,H,W) in [0,1]. Raises ValueError if the
    network has no such feature map."""
    features = _last_stage_input(model, image)
    if features is None:
        raise ValueError(
            f"timm lists no stages with (N,C,h,w) feature maps for {model.architecture}, which ddt "
            "needs"
        )
    features = features.cpu().double()
    lengths = features.norm(dim=1, keepdim=True)
    return features / lengths.clamp(min=1e-12).sqrt()


def _last_stage_input(model: Classifier, image: Tensor) -> Tensor | None:
    """The input (N,C,h,w) of the last stage in timm's list of stages, or None."""
    stages = getattr(model.backbone, "feature_info", None)
    if not isinstance(stages, list) or not stages:
        return None
    network = private_copy(model)
    found: list[object] = []
    network.backbone.get_submodule(stages[-1]["module"]).register_forward_pre_hook(
        lambda module, inputs: found.append(inputs[0])
    )
    network(image)
    (features,) = found
    return features if isinstance(features, Tensor) and features.ndim == 4 else None
