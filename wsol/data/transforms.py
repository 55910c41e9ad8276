"""What happens to an image between the file and the network; boxes follow."""

import albumentations as A
import cv2


def train_transform(size: int = 224, resize: int = 256) -> A.Compose:
    """Resize to `resize` squared (aspect ratio not kept), random crop of `size`, random flip."""
    if not 1 <= size <= resize:
        raise ValueError(f"the crop must fit the resized image, but {size} is not in 1..{resize}")
    return _compose([_resize(resize), A.RandomCrop(size, size), A.HorizontalFlip(p=0.5)])


def eval_transform(size: int = 224) -> A.Compose:
    """The whole frame resized to `size` squared, as the localization protocols do."""
    return _compose([_resize(size)])


def _resize(size: int) -> A.Resize:
    return A.Resize(size, size, interpolation=cv2.INTER_LINEAR, area_for_downscale="image")


def _compose(steps: list[A.BasicTransform]) -> A.Compose:
    boxes = A.BboxParams(format="pascal_voc", label_fields=[], clip=True)
    return A.Compose(steps, bbox_params=boxes)
