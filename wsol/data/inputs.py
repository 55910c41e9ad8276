"""Images from users: files, folders, PIL images, arrays, tensors."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsol.data.image_files import read_image

ImageLike = str | os.PathLike | Image.Image | np.ndarray | Tensor
_JPEG = (".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".jfi")
_SUFFIXES = {*_JPEG, ".png", ".bmp", ".webp", ".tif", ".tiff"}
# kinds of photos that folders are not searched for: a folder's user may miss them
_UNREAD = {
    ".heic",
    ".heif",
    ".hif",
    ".avif",
    ".jxl",
    ".jp2",
    ".j2k",
    ".jxr",
    ".gif",
    ".psd",
    ".tga",
}
_UNREAD |= {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw"}


def each_image(images: ImageLike | Iterable[ImageLike]) -> Iterator[ImageLike]:
    """Yields one image or many, one by one; a folder yields the images in it.

    Raises:
        ValueError: a folder has no images.
    """
    for image in [images] if _is_one(images) else images:
        if isinstance(image, str | os.PathLike) and os.path.isdir(image):
            yield from find_images(image)
        else:
            yield image


def find_images(folder: str | os.PathLike) -> list[Path]:
    """Finds all image files in a folder, at any depth, sorted.

    Hidden files (`.name`) and files in hidden folders are left out. Warns if there are photos of
    other kinds, such as HEIC.

    Raises:
        ValueError: there are none.
    """
    found, unread = find_photos(folder)
    if not found:
        hint = f"; {unread_photos(unread)}" if unread else ""
        raise ValueError(f"there are no images in {folder}{hint}")
    if unread:
        warnings.warn(f"in {folder}, {unread_photos(unread)}", stacklevel=2)
    return found


def find_photos(folder: str | os.PathLike) -> tuple[list[Path], Counter[str]]:
    """Finds all images in a folder as `find_images` does, also if there are none.

    Returns:
        The images, and the number of photos of kinds that are not read, by their suffix.
    """
    found, unread = [], Counter[str]()
    for file in Path(folder).rglob("*"):
        if is_image(file, Path(folder)):
            found.append(file)
        elif _is_visible(file, Path(folder), _UNREAD):
            unread[file.suffix.lower()] += 1
    return sorted(found), unread


def unread_photos(counts: Mapping[str, int]) -> str:
    """A sentence: how many photos of kinds that are not read there are, and what to do."""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
    return f"photos of these kinds are left out: {kinds}; convert them to JPEG or PNG"


def is_image(file: Path, folder: Path) -> bool:
    """Whether a path in a folder has the name of a visible image file."""
    return _is_visible(file, folder, _SUFFIXES)


def _is_visible(file: Path, folder: Path, suffixes: set[str]) -> bool:
    if file.suffix.lower() not in suffixes:
        return False
    # macOS writes hidden files, for example ._photo.jpg for photo.jpg, which are not images
    return not any(part[0] == "." for part in file.relative_to(folder).parts) and not file.is_dir()


def read_pixels(image: ImageLike) -> np.ndarray:
    """Reads an image's pixels.

    `wsol.data.image_files.read_image` reads files and PIL images; EXIF's orientation rotates them.

    Returns:
        (H,W,3) RGB: float32 in [0,1] if the image is a tensor, otherwise uint8.

    Raises:
        ValueError: it is not an image, or has no pixels.
    """
    if isinstance(image, Tensor):
        return _tensor_pixels(image)
    if isinstance(image, str | os.PathLike | Image.Image):
        image = read_image(image, upright=True)
    if not isinstance(image, np.ndarray):
        raise ValueError(
            "an image is a path, a PIL image, a uint8 array (H,W,3) or a float tensor (3,H,W), "
            f"not {type(image).__name__}"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"an image array is uint8 (H,W,3) RGB, not {image.dtype} {image.shape}")
    return image


def to_pixels(image: Tensor) -> np.ndarray:
    """Converts images (N,3,H,W) in [0,1] to uint8 (N,H,W,3)."""
    return (image.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()


def _tensor_pixels(image: Tensor) -> np.ndarray:
    shape = tuple(image.shape)
    if len(shape) != 3 or shape[0] != 3 or not image.is_floating_point() or not image.numel():
        raise ValueError(f"an image tensor is float (3,H,W) RGB, not {image.dtype} {shape}")
    pixels = image.detach().to("cpu", torch.float32).permute(1, 2, 0).contiguous().numpy()
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN too
        raise ValueError("an image tensor must lie in [0,1] and hold no NaN")
    return pixels


def _is_one(images: ImageLike | Iterable[ImageLike]) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim <= 3
    return isinstance(images, str | bytes | os.PathLike | Image.Image | None | int | float)
