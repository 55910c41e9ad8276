"""The toy birds as a data set in CUB-200-2011's own layout."""

import os
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from wsol.data.toy_birds.birds import DISTRACTORS, SPECIES, draw
from wsol.data.toy_birds.null_patch import add_null_patch
from wsol.data.toy_birds.scenery import BACKGROUNDS


def write_toy_birds(
    root: str | os.PathLike,
    *,
    images: int = 600,
    size: int = 96,
    species: int = len(SPECIES),
    background_tie: float = 0.0,
    test_fraction: float = 1 / 3,
    null_patch: bool = False,
    distractors: tuple[int, int] = DISTRACTORS,
    seed: int = 0,
) -> Path:
    """Draws the toy birds into `root`/CUB_200_2011 and returns that folder.

    Equal arguments write equal bytes. Besides CUB's files there are `segmentations/` (masks,
    0 or 255), `backgrounds.txt` (image id, kind of background) and, with null patches,
    `null_patches.txt` (image id, x, y, width, height in pixels).

    Args:
        images: Number of images, spread evenly over the species.
        size: Side of the square images in pixels.
        species: Number of species, at least 2.
        background_tie: Probability that a species stands before the one kind of background assigned
            to it (two species share each of the five kinds), from 0 (independent) to 1 (always), in
            training images. Test images stand before any kind with equal probability, which shows
            whether a model uses the tie (as Waterbirds' balanced test does: Sagawa et al., ICLR
            2020).
        test_fraction: Fraction of each species that goes to the test split.
        null_patch: Whether a striking patch is behind the bird. It looks the same in all images,
            lies at a random place, and is independent of the species
            (`wsol.data.toy_birds.null_patch`).
        distractors: Smallest and largest number of leaves, stones, berries and twigs in an image.
        seed: Decides everything random.

    Raises:
        ValueError: an argument is out of range, or the folder already exists.
    """
    if not 2 <= species <= len(SPECIES):
        raise ValueError(f"species must be 2 to {len(SPECIES)}, not {species}")
    if images < 3 * species:
        raise ValueError(f"images must be at least 3 per species, {3 * species}, not {images}")
    if not 32 <= size <= 1024:
        raise ValueError(f"size must be 32 to 1024 pixels, not {size}")
    if not 0 <= background_tie <= 1:
        raise ValueError(f"background_tie must be 0 to 1, not {background_tie}")
    if not 0 <= distractors[0] <= distractors[1]:
        raise ValueError(f"distractors must be two numbers in order, not {distractors}")
    # these import PyTorch; a help text need not wait
    from robust_training.atomic_io import new_folder
    from robust_training.progress import Progress

    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1, not {test_fraction}")
    folder = Path(root) / "CUB_200_2011"
    if folder.exists():
        raise ValueError(f"{folder} already exists; remove it or choose another folder")
    lines: dict[str, list[str]] = defaultdict(list)
    kinds = list(BACKGROUNDS)
    with new_folder(folder) as partial:
        for index in Progress(range(images), desc="drawing", unit="image", leave=False):
            kind_of_bird, number = index % species, index // species
            bird = SPECIES[kind_of_bird]
            per_species = len(range(kind_of_bird, images, species))
            is_train = number >= round(test_fraction * per_species)
            identity = index + 1
            rng = np.random.default_rng([seed, index])
            tied = rng.random() < background_tie and is_train
            kind = kinds[kind_of_bird % len(kinds)] if tied else kinds[rng.integers(len(kinds))]
            image, mask = draw(bird, kind, size, rng, distractors=distractors)
            boxes = {"bounding_boxes": cv2.boundingRect(mask)}
            if null_patch:  # drawn last, so that all other pixels are as without it
                boxes["null_patches"] = add_null_patch(image, mask, rng)
            name = f"{kind_of_bird + 1:03d}.{bird.name}/{bird.name}_{number + 1:04d}"
            for part, suffix, pixels in (
                ("images", ".jpg", image[..., ::-1]),
                ("segmentations", ".png", mask),
            ):
                file = partial / part / (name + suffix)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())
            lines["images"].append(f"{identity} {name}.jpg")
            lines["image_class_labels"].append(f"{identity} {kind_of_bird + 1}")
            lines["train_test_split"].append(f"{identity} {int(is_train)}")
            lines["backgrounds"].append(f"{identity} {kind}")
            for place, box in boxes.items():
                lines[place].append(" ".join([str(identity), *(f"{value:.1f}" for value in box)]))
        lines["classes"] = [f"{i + 1} {i + 1:03d}.{SPECIES[i].name}" for i in range(species)]
        for name, rows in lines.items():
            (partial / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return folder
