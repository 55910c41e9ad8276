"""Backgrounds and distractors of the toy birds."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray
Colour = tuple[int, int, int]


def pixel(colour: ArrayLike) -> Colour:
    """Clips RGB values to 0 to 255 and rounds them down, as OpenCV needs them."""
    return tuple(int(value) for value in np.clip(colour, 0, 255))


def add_distractor(canvas: Array, colours: Sequence[Colour], rng: np.random.Generator) -> None:
    """Draws a leaf, a stone, berries or a twig, in one of `colours` half of the time."""
    size = canvas.shape[0]
    bird = colours[rng.integers(len(colours))]
    colour = np.asarray(bird if rng.random() < 0.5 else (95, 110, 70), float)
    colour = pixel(colour * rng.uniform(0.7, 1.2, 3))
    x, y = rng.uniform(0, size, 2).astype(int).tolist()
    kind, turn = rng.integers(4), float(rng.uniform(0, 180))
    if kind < 2:  # leaf or stone
        sides = ((0.04, 0.1), (0.015, 0.035)) if kind == 0 else ((0.03, 0.07), (0.025, 0.05))
        axes = tuple(int(size * rng.uniform(*side)) for side in sides)
        cv2.ellipse(canvas, (x, y), axes, turn, 0, 360, colour, -1)
    elif kind == 2:  # berries
        for _ in range(3):
            shift = rng.uniform(-0.04, 0.04, 2) * size
            centre = (int(x + shift[0]), int(y + shift[1]))
            cv2.circle(canvas, centre, int(size * 0.018), colour, -1)
    else:  # twig
        reach = rng.uniform(-0.5, 0.5, 2) * size
        cv2.line(canvas, (x, y), (int(x + reach[0]), int(y + reach[1])), colour, max(1, size // 60))


def noise(size: int, cells: int, rng: np.random.Generator, stretch: int = 1) -> Array:
    """Makes smooth noise (size,size), about -1 to 1; `stretch` > 1 widens it sideways."""
    grid = rng.uniform(-1, 1, (cells, max(2, cells // stretch))).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def _tinted(base, texture: Array, spread: float) -> Array:
    return np.ascontiguousarray(np.asarray(base, np.float32) + spread * texture[..., None])


def _sky(size: int, rng: np.random.Generator) -> Array:
    fall = np.linspace(1, -1, size, dtype=np.float32)[:, None] * np.ones((1, size), np.float32)
    texture = 0.7 * fall + noise(size, 5, rng, 2) + 0.3 * noise(size, 20, rng)
    return _tinted((150, 180, 205), texture, 22)


BACKGROUNDS: dict[str, Callable[[int, np.random.Generator], Array]] = {
    "foliage": lambda n, rng: _tinted(
        (70, 105, 55), noise(n, 6, rng) + 0.8 * noise(n, 24, rng) + 0.6 * noise(n, 48, rng), 32
    ),
    "sky": _sky,
    "water": lambda n, rng: _tinted(
        (75, 115, 140), noise(n, 32, rng, 6) + 0.6 * noise(n, 12, rng, 3), 30
    ),
    "sand": lambda n, rng: _tinted(
        (190, 165, 125), 0.7 * noise(n, 5, rng) + noise(n, n // 4, rng), 22
    ),
    "bark": lambda n, rng: _tinted(
        (105, 80, 60), noise(n, 30, rng, 5).T + 0.6 * noise(n, 40, rng), 30
    ),
}
