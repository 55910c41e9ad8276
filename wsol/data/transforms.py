"""The steps from an image's pixels to a network's input; boxes follow."""

import os

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

# When imported, albumentations asks the network for updates, unless this variable is set. It is
# set for the import only: the environment belongs to the host program.
_NO_UPDATE = "NO_ALBUMENTATIONS_UPDATE"
_was_set = _NO_UPDATE in os.environ
os.environ.setdefault(_NO_UPDATE, "1")
try:
    import albumentations as A
finally:
    if not _was_set:
        del os.environ[_NO_UPDATE]

Transform = A.Compose


def train_transform(
    size: int = 224, resize: int = 256, *, horizontal_flip: bool = True
) -> Transform:
    """Resize to `resize` squared (aspect ratio not kept), random crop of `size`, and with
    `horizontal_flip` a mirror image of half of the images."""
    if not 1 <= size <= resize:
        raise ValueError(f"the crop must fit the resized image, but {size} is not in 1..{resize}")
    flips = [A.HorizontalFlip(p=0.5)] if horizontal_flip else []
    return _compose([_resize(resize), A.RandomCrop(size, size), *flips])


def eval_transform(size: int = 224) -> Transform:
    """Resize the whole frame to `size` squared, as the localization protocols do."""
    return _compose([_resize(size)])


def network_input(
    pixels: np.ndarray, transform: Transform | None, boxes: ArrayLike = ()
) -> tuple[Tensor, ArrayLike]:
    """Turns an image's pixels into the tensor that networks take.

    Args:
        pixels: (H,W,3) RGB, uint8 or float32 in [0,1].
        transform: From this module; None keeps the size.
        boxes: (K,4) half-open xyxy in these pixels.

    Returns:
        float32 (3,S,S) in [0,1], and the boxes in its pixels without those that a crop has lost.
    """
    if transform is not None:
        changed = transform(image=pixels, bboxes=np.reshape(boxes, (-1, 4)))
        pixels, boxes = changed["image"], changed["bboxes"]
    image = torch.from_numpy(np.array(pixels))
    unit = image if image.is_floating_point() else image.float() / 255
    return unit.permute(2, 0, 1), boxes


def _resize(size: int) -> A.Resize:
    return A.Resize(size, size, interpolation=cv2.INTER_LINEAR, area_for_downscale="image")


def _compose(steps: list[A.BasicTransform]) -> Transform:
    boxes = A.BboxParams(format="pascal_voc", label_fields=[], clip=True)
    return A.Compose(steps, bbox_params=boxes)
