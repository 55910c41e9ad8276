"""Reading image files."""

import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def read_image(path: str | os.PathLike, *, upright: bool = False) -> np.ndarray:
    """uint8 (H,W,3) RGB; grayscale is repeated over the channels, transparency dropped.

    Args:
        upright: Apply the camera's orientation tag, as viewers do. Data sets whose boxes were drawn
            on the stored pixels, CUB among them, must not.

    Raises:
        ValueError: the file is missing or is no readable image; names it.
    """
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image) if upright else image
            if image.mode.startswith("I;16"):  # Pillow would cut it at 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "it does not exist" if not os.path.exists(path) else f"{error}"
        raise ValueError(f"cannot read image {path}: {reason}") from error
