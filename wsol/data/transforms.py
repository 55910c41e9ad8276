"""What happens to an image between the file and the network; boxes follow."""

import os

import cv2

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


def train_transform(size: int = 224, resize: int = 256) -> Transform:
    """Resize to `resize` squared (aspect ratio not kept), random crop of `size`, random flip."""
    if not 1 <= size <= resize:
        raise ValueError(f"the crop must fit the resized image, but {size} is not in 1..{resize}")
    return _compose([_resize(resize), A.RandomCrop(size, size), A.HorizontalFlip(p=0.5)])


def eval_transform(size: int = 224) -> Transform:
    """The whole frame resized to `size` squared, as the localization protocols do."""
    return _compose([_resize(size)])


def _resize(size: int) -> A.Resize:
    return A.Resize(size, size, interpolation=cv2.INTER_LINEAR, area_for_downscale="image")


def _compose(steps: list[A.BasicTransform]) -> Transform:
    boxes = A.BboxParams(format="pascal_voc", label_fields=[], clip=True)
    return A.Compose(steps, bbox_params=boxes)
