"""Readers of image files, which may be damaged, huge, or not images at all."""

import os
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps

# Pillow opens many more formats. For EPS it runs another program on the file.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 2**30 // 4 // 3  # 89 million, above which Pillow warns; reading takes up to 1.3 GB
_ORIENTATION = ExifTags.Base.Orientation
_SIDEWAYS = (5, 6, 7, 8)  # values of the tag that swap width and height
_T = TypeVar("_T")


def read_image(path: str | os.PathLike, *, upright: bool = False) -> np.ndarray:
    """Reads an image file as uint8 (H,W,3) RGB.

    Grayscale is repeated over the channels and transparency is dropped. The upper 8 of 16 bits and
    the first picture of an animation are kept. CMYK becomes RGB without a colour profile.

    Args:
        upright: Whether to rotate the image by its EXIF tag, as viewers do. It must be False for
            data sets whose boxes refer to the stored pixels, for example CUB.

    Raises:
        ValueError: the file is missing, is not a readable image, or has 32 bits a channel or more
            than `MOST_PIXELS` pixels. The message names the file.
    """
    return _open(path, lambda image: _pixels(image, "RGB", upright))


def read_gray(path: str | os.PathLike) -> np.ndarray:
    """Reads a mask as uint8 (H,W), not rotated. Colours are converted to luminance.

    Raises:
        ValueError: the file cannot be read, see `read_image`.
    """
    return _open(path, lambda image: _pixels(image, "L", False))


def image_size(path: str | os.PathLike, *, upright: bool = False) -> tuple[int, int]:
    """Reads (width, height) of the image that `read_image` returns, from the file's header alone.

    Raises:
        ValueError: the file cannot be read, see `read_image`.
    """
    return _open(path, lambda image: _size(image, upright))


def _open(path: str | os.PathLike, read: Callable[[Image.Image], _T]) -> _T:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:  # before anything is decoded
                raise ValueError(
                    f"its {width} x {height} pixels are more than {MOST_PIXELS:,}; make it smaller"
                )
            return read(image)
    except Exception as error:  # Pillow raises many types of errors for damaged files
        reason = "it does not exist" if not os.path.lexists(path) else _reason(error)
        raise ValueError(f"cannot read image {path}: {reason}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"it is not a {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _size(image: Image.Image, upright: bool) -> tuple[int, int]:
    # Pillow itself rotates TIFFs, and gives their rotated sizes
    swapped = upright and image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _SIDEWAYS
    return image.size[::-1] if swapped else image.size


def _pixels(image: Image.Image, mode: str, upright: bool) -> np.ndarray:
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow would cut it at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):  # 32 bits; their range is unknown
        raise ValueError("it has 32 bits a channel; convert it to 8 or 16")
    return np.asarray(image.convert(mode))
