"""Images from users: files, folders, URLs, videos, bytes, PIL images, arrays, tensors."""

import glob
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.request import Request, urlopen

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from wsol.data.image_files import read_image

ImageLike = str | os.PathLike | Image.Image | np.ndarray | Tensor | bytes | BinaryIO
KINDS = (
    "an image is a path, a URL, bytes or an open file of an encoded image, a PIL image, an array "
    "(H,W), (H,W,3) or (H,W,4), or a tensor (3,H,W)"
)
_URLS = ("http://", "https://")
_SECONDS, _MOST_BYTES = 30, 2**28  # of a download
_JPEG = (".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".jfi")
_SUFFIXES = {*_JPEG, ".png", ".bmp", ".webp", ".tif", ".tiff"}
_VIDEOS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"}
# kinds of photos that folders are not searched for: a folder's user may miss them
_UNREAD = {
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jxr", ".gif", ".psd", ".tga"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw"),
}


def each_image(images: ImageLike | Iterable[ImageLike]) -> Iterator[ImageLike]:
    """Yields one image or many, one by one.

    A folder yields the images in it; a pattern such as `photos/*.jpg` yields the files and folders
    that it matches, sorted; a video file yields its frames. An open file yields its bytes. Raises
    ValueError if a folder has no images, a pattern matches nothing, or a video has no frames that
    can be read."""
    for image in [images] if _is_one(images) else images:
        if isinstance(image, str | os.PathLike):
            yield from _each_of_path(image)
        else:
            yield _content(image) if hasattr(image, "read") else image


def _each_of_path(path: str | os.PathLike) -> Iterator[ImageLike]:
    if os.path.isdir(path):
        yield from find_images(path)
    elif is_url(path) or os.path.lexists(path) or not glob.has_magic(os.fspath(path)):
        if Path(path).suffix.lower() in _VIDEOS and os.path.isfile(path):
            yield from _frames(path)
        else:
            yield path
    else:
        found = sorted(glob.glob(os.fspath(path), recursive=True))
        if not found:
            raise ValueError(f"no file matches {path}")
        for each in found:
            yield from _each_of_path(each)


def _content(file: BinaryIO) -> bytes:
    if file.seekable():
        file.seek(0)  # the image may just have been written to it
    content = file.read()
    if not isinstance(content, bytes):
        raise ValueError("a file of an image must be opened with mode 'rb'")
    return content


def _frames(video: str | os.PathLike) -> Iterator[np.ndarray]:
    """Yields the frames of a video file, uint8 (H,W,3) RGB; ValueError if there are none."""
    stream, count = cv2.VideoCapture(os.fspath(video)), 0
    try:
        while (found := stream.read())[0]:
            yield np.ascontiguousarray(found[1][..., ::-1])
            count += 1
    finally:
        stream.release()
    if not count:
        raise ValueError(f"cannot read a frame of the video {video}; convert it to MP4 (H.264)")


def is_url(image: object) -> bool:
    """Whether an image is given by its http or https address."""
    return isinstance(image, str) and image.lower().startswith(_URLS)


def _fetch(url: str) -> bytes:
    """Downloads a file of at most `_MOST_BYTES`. Raises ValueError if the address cannot be
    reached, or the file is larger."""
    try:
        # some servers refuse the default name of Python's client
        with urlopen(Request(url, headers={"User-Agent": "wsol"}), timeout=_SECONDS) as answer:
            content = answer.read(_MOST_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot download {url}: {reason}") from error
    if len(content) > _MOST_BYTES:
        raise ValueError(f"cannot download {url}: it has more than {_MOST_BYTES >> 20} MB")
    return content


def find_images(folder: str | os.PathLike) -> list[Path]:
    """Finds all image files in a folder, at any depth, sorted.

    Hidden files (`.name`) and files in hidden folders are left out. Warns if there are photos of
    other kinds, such as HEIC. Raises ValueError if there are none."""
    found, unread = find_photos(folder)
    if not found:
        hint = f"; {unread_photos(unread)}" if unread else ""
        raise ValueError(f"there are no images in {folder}{hint}")
    if unread:
        warnings.warn(f"in {folder}, {unread_photos(unread)}", stacklevel=2)
    return found


def find_photos(folder: str | os.PathLike) -> tuple[list[Path], Counter[str]]:
    """Finds all images in a folder as `find_images` does, also if there are none. Also returns the
    number of photos of kinds that are not read, by their suffix."""
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

    `wsol.data.image_files.read_image` reads files, bytes and PIL images; EXIF's orientation rotates
    them. Gray is repeated over the channels, transparency is dropped, and of 16 bits the upper 8
    are kept, in arrays as in files.

    Args:
        image: Also an http or https address, which is downloaded. Arrays are (H,W), or (H,W,C) with
            1 to 4 channels: gray, gray and transparency, RGB, RGBA. Tensors are (C,H,W). Both are
            uint8, uint16, or float in [0,1].

    Returns:
        (H,W,3) RGB: float32 in [0,1] if the image is an array or tensor of floats, otherwise uint8.

    Raises:
        ValueError: it is not an image, or has no pixels, or cannot be downloaded.
    """
    if isinstance(image, Tensor):
        floats = image.detach().cpu().float() if image.is_floating_point() else image.cpu()
        last = floats.movedim(0, -1) if floats.ndim == 3 else floats
        return _array_pixels(last.numpy(), "tensor", "(3,H,W)", tuple(image.shape))
    if isinstance(image, np.ndarray):
        return _array_pixels(image, "array", "(H,W,3)", image.shape)
    if not isinstance(image, str | os.PathLike | Image.Image | bytes):
        raise ValueError(f"{KINDS}, not {type(image).__name__}")
    if not is_url(image):
        return read_image(image, upright=True)
    content = _fetch(image)
    try:
        return read_image(content, upright=True)
    except ValueError as error:
        raise ValueError(f"{image}: {error}") from error


def to_pixels(image: Tensor) -> np.ndarray:
    """Converts images (N,3,H,W) in [0,1] to uint8 (N,H,W,3)."""
    return (image.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()


def _array_pixels(image: np.ndarray, kind: str, layout: str, shape: tuple[int, ...]) -> np.ndarray:
    """(H,W) or (H,W,1 to 4) -> (H,W,3). Messages name the kind, layout and shape as given."""
    pixels = image[..., None] if image.ndim == 2 else image
    floats = np.issubdtype(image.dtype, np.floating)
    known = floats or image.dtype in (np.uint8, np.uint16)
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or not pixels.size or not known:
        raise ValueError(
            f"an image {kind} is {layout} RGB, RGBA or gray, uint8 or float in [0,1], not "
            f"{image.dtype} {shape}"
        )
    pixels = np.repeat(pixels[..., :1], 3, axis=2) if pixels.shape[2] < 3 else pixels[..., :3]
    if image.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    if floats and not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN too
        raise ValueError(
            f"an image {kind} of floats must lie in [0,1] and hold no NaN: divide values up to 255 "
            "by 255"
        )
    return np.ascontiguousarray(pixels, np.float32 if floats else np.uint8)


def _is_one(images: ImageLike | Iterable[ImageLike]) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim <= 3
    return (
        not isinstance(images, Iterable)
        or isinstance(images, str | bytes | os.PathLike | Image.Image)
        or hasattr(images, "read")
    )
