"""Reading image files, which may be damaged, huge, or something else altogether."""

import os
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps

# Pillow opens many more; one of them, EPS, by running another program on the file.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 2**30 // 4 // 3  # 89 million; where Pillow begins to warn. Reading takes up to 1.3 GB
_ORIENTATION = ExifTags.Base.Orientation
_SIDEWAYS = (5, 6, 7, 8)  # values of the tag under which width and height change places
_T = TypeVar("_T")


def read_image(path: str | os.PathLike, *, upright: bool = False) -> np.ndarray:
    """uint8 (H,W,3) RGB; grayscale is repeated over the channels, transparency dropped.

    Of 16 bits the upper 8 are kept, of an animation the first picture. CMYK becomes RGB without a
    colour profile.

    Args:
        upright: Apply the camera's orientation tag, as viewers do. Data sets whose boxes were drawn
            on the stored pixels, CUB among them, must not.

    Raises:
        ValueError: the file is missing, is no readable image, has 32 bits a channel or more than
            `MOST_PIXELS` pixels; names it.
    """
    return _read(path, lambda image: _pixels(image, "RGB", upright))


def read_gray(path: str | os.PathLike) -> np.ndarray:
    """uint8 (H,W), as stored: a mask. Colours become their luminance.

    Raises:
        ValueError: as `read_image`.
    """
    return _read(path, lambda image: _pixels(image, "L", False))


def image_size(path: str | os.PathLike, *, upright: bool = False) -> tuple[int, int]:
    """(width, height) of what `read_image` gives, from the file's header alone.

    Raises:
        ValueError: as `read_image`.
    """
    return _read(path, lambda image: _size(image, upright))


def _read(path: str | os.PathLike, take: Callable[[Image.Image], _T]) -> _T:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:  # before anything is decoded
                raise ValueError(
                    f"its {width} x {height} pixels are more than {MOST_PIXELS:,}; make it smaller"
                )
            return take(image)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        reason = "it does not exist" if not os.path.lexists(path) else _reason(error)
        raise ValueError(f"cannot read image {path}: {reason}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"it is no {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _size(image: Image.Image, upright: bool) -> tuple[int, int]:
    # Pillow turns TIFFs by itself, their sizes first
    turned = upright and image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _SIDEWAYS
    return image.size[::-1] if turned else image.size


def _pixels(image: Image.Image, mode: str, upright: bool) -> np.ndarray:
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow would cut it at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):  # 32 bits, of a range that the file does not say
        raise ValueError("it has 32 bits a channel; convert it to 8 or 16")
    return np.asarray(image.convert(mode))
