"""Readers of image files, which may be damaged, huge, or not images at all."""

import io
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image

# Pillow opens many more formats. For EPS it runs another program on the file.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 2**30 // 4 // 3  # 89 million, above which Pillow warns; reading takes up to 1.3 GB
_BYTE_ORDERS = {b"II*\0": "little", b"MM\0*": "big"}  # how EXIF data begins
_TURNS = {  # EXIF's orientation -> the turn that puts the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
_T = TypeVar("_T")
Source = str | os.PathLike | Image.Image | bytes


def read_image(source: Source, *, upright: bool = False) -> np.ndarray:
    """Reads an image file, its content, or an image that Pillow has opened: uint8 (H,W,3) RGB.

    Grayscale is repeated over the channels and transparency is dropped. The upper 8 of 16 bits and
    the first picture of an animation are kept. CMYK becomes RGB without a colour profile.

    Args:
        upright: Whether to rotate the image by its EXIF orientation, as viewers do. It must be
            False for data sets whose boxes refer to the stored pixels, for example CUB.

    Raises:
        ValueError: the file is missing, is not a readable image, or has 32 bits a channel or more
            than `MOST_PIXELS` pixels. The message names the file.
    """
    return _open(source, lambda image: _pixels(image, "RGB", upright))


def read_gray(path: str | os.PathLike) -> np.ndarray:
    """Reads a mask as uint8 (H,W), not rotated. Colours are converted to luminance. Raises
    ValueError if the file cannot be read, see `read_image`."""
    return _open(path, lambda image: _pixels(image, "L", False))


def image_size(path: str | os.PathLike, *, upright: bool = False) -> tuple[int, int]:
    """Reads (width, height) of the image that `read_image` returns, from the file's header alone.
    Raises ValueError if the file cannot be read, see `read_image`."""
    return _open(path, lambda image: _size(image, upright))


def _open(source: Source, read: Callable[[Image.Image], _T]) -> _T:
    is_open, is_content = isinstance(source, Image.Image), isinstance(source, bytes)
    name = f"of {len(source)} bytes" if is_content else getattr(source, "filename", "") or source
    file = io.BytesIO(source) if is_content else source
    try:
        with nullcontext(source) if is_open else Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:  # before anything is decoded
                raise ValueError(
                    f"its {width} x {height} pixels are more than {MOST_PIXELS:,}; make it smaller"
                )
            return read(image)
    except Exception as error:  # Pillow raises many types of errors for damaged files
        # a file that is there, but cannot be found, is a link to nowhere
        missing = isinstance(error, FileNotFoundError) and not os.path.lexists(name)
        reason = "it does not exist" if missing else _reason(error)
        raise ValueError(f"cannot read image {name}: {reason}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"it is not a {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _size(image: Image.Image, upright: bool) -> tuple[int, int]:
    return image.size[::-1] if upright and _orientation(image) in _SIDEWAYS else image.size


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation. Values other than 2 to 8 mean that the image is upright.

    Other tags may be damaged. As in OpenCV, the value is the first two bytes of the tag's field,
    whatever type is declared, and orientations in XMP do not count. Pillow rotates TIFFs itself.
    """
    if image.format == "PNG":
        image.load()  # its EXIF may follow the pixels
    exif = image.info.get("exif")
    data = exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else b""
    order = _BYTE_ORDERS.get(data[:4])
    if order is None:
        return 1

    def whole(start: int, length: int = 2) -> int:
        return int.from_bytes(data[start : start + length], order)

    directory = whole(4, length=4)
    first, count = directory + 2, whole(directory)
    fields = (
        entry + 8
        for entry in range(first, first + 12 * count, 12)
        if whole(entry) == ExifTags.Base.Orientation
    )
    return next(map(whole, fields), 1)


def _pixels(image: Image.Image, mode: str, upright: bool) -> np.ndarray:
    turn = _TURNS.get(_orientation(image)) if upright else None
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I;16"):  # Pillow would cut it at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):  # 32 bits; their range is unknown
        raise ValueError("it has 32 bits a channel; convert it to 8 or 16")
    return np.asarray(image.convert(mode))
