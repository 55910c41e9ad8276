"""A striking patch behind the toy birds that is independent of the class.

It follows BlockMNIST (Shah et al., NeurIPS 2021, "Do input gradients highlight discriminative
features?"): an attribution on the patch leaks onto pixels on which the label does not depend.
"""

import numpy as np

_BLACK, _WHITE, _ORANGE = (0, 0, 0), (255, 255, 255), (255, 120, 0)
_CELLS = 4


def null_patch(side: int) -> np.ndarray:
    """Draws a black and white checker under an orange cross, uint8 (side,side,3) RGB."""
    place = np.arange(side)
    cell = place * _CELLS // side
    is_white = (cell[:, None] + cell) % 2 == 1
    reach = side / 12
    falling, rising = place[:, None] - place, place[:, None] + place - (side - 1)
    is_cross = (abs(falling) <= reach) | (abs(rising) <= reach)
    checker = np.where(is_white[..., None], _WHITE, _BLACK)
    return np.where(is_cross[..., None], _ORANGE, checker).astype(np.uint8)


def add_null_patch(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Paints the patch, a fifth of the image's side, into `image` where `mask` is 0.

    Args:
        image: uint8 (S,S,3) RGB, changed in place.
        mask: uint8 (S,S), 0 where there is no bird.
        rng: Draws a place at which the whole patch lies in the image.

    Returns:
        The patch's x, y, width and height in pixels, hidden parts included.
    """
    size = len(image)
    side = round(size / 5)
    x, y = rng.integers(size - side + 1, size=2).tolist()
    inside = np.s_[y : y + side, x : x + side]
    is_visible = mask[inside] == 0
    image[inside][is_visible] = null_patch(side)[is_visible]
    return x, y, side, side
