"""Ten species of birds, drawn by a program with exact masks.

The species differ in shape, colour and pattern (some pairs in one of these alone). Pose, size and
place vary, backgrounds are textured, and leaves, stones, berries and twigs in the birds' colours
distract.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from wsol.data.toy_birds.scenery import BACKGROUNDS, Array, Colour, add_distractor, noise, pixel

DISTRACTORS = (4, 8)  # smallest and largest number in an image
_SUPERSAMPLING = 3


@dataclass(frozen=True)
class Species:
    """The look of a species. Lengths are fractions of the body's length; colours are RGB."""

    name: str
    body: Colour
    wing: Colour
    head: Colour
    beak: float
    tail: float
    neck: float
    height: float
    pattern: str


_RED, _BLUE, _YELLOW = (200, 40, 40), (50, 80, 190), (225, 190, 50)
_BROWN, _WHITE, _BLACK = (130, 90, 55), (235, 235, 230), (35, 35, 40)
_GREEN, _ORANGE, _GREY = (60, 140, 70), (230, 120, 40), (140, 145, 155)

SPECIES = (
    Species("Red_Finch", _RED, (150, 30, 35), _RED, 0.14, 0.35, 0.0, 0.55, "plain"),
    Species("Red_Longtail", _RED, (150, 30, 35), _RED, 0.14, 0.95, 0.0, 0.42, "plain"),
    Species("Blue_Jay", _BLUE, (40, 60, 140), _BLUE, 0.18, 0.55, 0.0, 0.48, "bars"),
    Species("Blue_Dot", _BLUE, (40, 60, 140), _BLUE, 0.18, 0.55, 0.0, 0.48, "spots"),
    Species("Gold_Warbler", _YELLOW, (190, 150, 40), _YELLOW, 0.12, 0.35, 0.0, 0.52, "plain"),
    Species("Gold_Blackcap", _YELLOW, (190, 150, 40), _BLACK, 0.12, 0.35, 0.0, 0.52, "plain"),
    Species("Brown_Heron", _BROWN, (100, 70, 45), _BROWN, 0.45, 0.30, 0.55, 0.40, "plain"),
    Species("White_Tern", _WHITE, _GREY, _BLACK, 0.22, 0.70, 0.0, 0.38, "plain"),
    Species("Green_Parrot", _GREEN, (45, 105, 55), _ORANGE, 0.10, 0.60, 0.0, 0.60, "patch"),
    Species("Black_Magpie", _BLACK, _GREY, _BLACK, 0.16, 0.80, 0.0, 0.45, "bars"),
)


def draw(
    bird: Species,
    background: str,
    size: int,
    rng: np.random.Generator,
    *,
    distractors: tuple[int, int] = DISTRACTORS,
) -> tuple[Array, Array]:
    """Draws an image, uint8 (size,size,3) RGB, and its mask, uint8 (size,size) of 0 and 255.
    `distractors` is the smallest and the largest number of distractors."""
    big = size * _SUPERSAMPLING
    canvas = BACKGROUNDS[background](big, rng)
    for _ in range(rng.integers(*distractors, endpoint=True)):
        add_distractor(canvas, [species.body for species in SPECIES], rng)
    layer, mask = _bird(bird, big, rng)
    shade = 1 + 0.25 * noise(big, 6, rng)[..., None]
    painted = np.where(mask[..., None] > 0, layer * shade, canvas)
    image = cv2.resize(painted.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    image += rng.normal(0, 5, image.shape)
    cover = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
    light = rng.uniform(0.75, 1.15)
    return (image * light).clip(0, 255).astype(np.uint8), np.where(cover > 127, 255, 0).astype(
        np.uint8
    )


def _bird(bird: Species, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draws a bird on an empty layer, float (size,size,3), and its mask, uint8."""
    layer = np.zeros((size, size, 3), np.uint8)
    mask = np.zeros((size, size), np.uint8)
    length = size * rng.uniform(0.22, 0.42)
    place = _Pose(
        centre=rng.uniform(0.28, 0.72, 2) * size,
        length=length,
        angle=rng.uniform(-0.45, 0.45),
        mirrored=rng.random() < 0.5,
    )
    fill = _Fill(layer, mask, place)
    body = np.asarray(bird.body) * rng.uniform(0.88, 1.12, 3)
    wing = np.asarray(bird.wing) * rng.uniform(0.88, 1.12, 3)
    high = bird.height
    neck = np.array([0.42 + 0.35 * bird.neck, -0.35 * high - bird.neck])
    droop = rng.uniform(-0.1, 0.2)
    tail = [(-0.35, -0.12 * high), (-0.45 - bird.tail, droop), (-0.42 - bird.tail, droop + 0.14)]
    fill.polygon([*tail, (-0.35, 0.25 * high)], wing)
    for leg in (-0.05, 0.1):
        fill.polygon(
            [(leg, 0.2), (leg + 0.04, 0.2), (leg + 0.08, 0.62), (leg + 0.04, 0.62)], _BROWN
        )
    if bird.neck:
        fill.polygon([(0.25, 0), (0.42, 0.08), neck + (0.1, 0.05), neck - (0.08, 0.05)], body)
    fill.ellipse((0, 0), (0.5, high / 2), 0.12, body)
    fill.ellipse(neck, (0.19, 0.18), 0, np.asarray(bird.head) * rng.uniform(0.9, 1.1))
    beak = [neck + (0.14, -0.06), neck + (0.17 + bird.beak, 0.03), neck + (0.14, 0.08)]
    fill.polygon(beak, _ORANGE if bird.body != _ORANGE else _BLACK)
    lift = rng.uniform(-0.6, 0.3)
    fill.ellipse((-0.1, -0.02), (0.34, 0.4 * high), lift * 0.5, wing)
    _PATTERNS[bird.pattern](fill, high)
    fill.ellipse(neck + (0.06, -0.04), (0.035, 0.035), 0, _WHITE)
    fill.ellipse(neck + (0.065, -0.04), (0.022, 0.022), 0, _BLACK)
    return layer.astype(np.float32), mask


@dataclass(frozen=True)
class _Pose:
    centre: Array
    length: float
    angle: float
    mirrored: bool

    def pixels(self, points: Array) -> Array:
        """Turns bird coordinates (K,2), in body lengths with the head at +x, into pixels (K,2)."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        turned = points @ np.array([[cosine, sine], [-sine, cosine]])
        if self.mirrored:
            turned = turned * (-1, 1)
        return self.centre + self.length * turned


@dataclass(frozen=True)
class _Fill:
    layer: Array
    mask: Array
    pose: _Pose

    def polygon(self, points, colour) -> None:
        corners = self.pose.pixels(np.asarray(points, float)).round().astype(np.int32)
        cv2.fillPoly(self.layer, [corners], pixel(colour))
        cv2.fillPoly(self.mask, [corners], 255)

    def ellipse(self, centre, axes, tilt: float, colour) -> None:
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        points = np.stack([axes[0] * np.cos(turn), axes[1] * np.sin(turn)], axis=1)
        cosine, sine = np.cos(tilt), np.sin(tilt)
        turned = points @ np.array([[cosine, sine], [-sine, cosine]])
        self.polygon(np.asarray(centre) + turned, colour)


def _bars(fill: _Fill, high: float) -> None:
    top, bottom = -0.22 * high, 0.25 * high
    for x in (-0.28, -0.12, 0.04):
        bar = [(x, top), (x + 0.06, top), (x + 0.02, bottom), (x - 0.04, bottom)]
        fill.polygon(bar, _WHITE)


def _spots(fill: _Fill, high: float) -> None:
    for x, y in ((-0.28, 0), (-0.12, -0.15), (-0.12, 0.15), (0.05, 0), (0.2, -0.12), (0.2, 0.15)):
        fill.ellipse((x, y * 2 * high), (0.055, 0.055), 0, _WHITE)


def _patch(fill: _Fill, high: float) -> None:
    fill.ellipse((-0.15, 0.05), (0.16, 0.2 * high), 0.2, _YELLOW)


_PATTERNS: dict[str, Callable[[_Fill, float], None]] = {
    "plain": lambda fill, high: None,
    "bars": _bars,
    "spots": _spots,
    "patch": _patch,
}
