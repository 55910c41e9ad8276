"""Speed of an attack on attribution maps, in batches and one image at a time."""

import time
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import nn

from robust_training.attacks.map_attack import MapAttack
from robust_training.attacks.pgd import PGD
from robust_training.models.creating import create_model
from wsol.cli.devices import find_device

_DEFAULT = MapAttack(PGD(random_start=False))  # the start does not depend on the batch size


def time_attack(
    model: str = "mobilenetv2_100",
    size: PositiveInt = 64,
    images: PositiveInt = 32,
    batch: PositiveInt = 32,
    singles: NonNegativeInt = 4,
    attack: MapAttack = _DEFAULT,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Seconds per image of an attack on random images, in batches and one image at a time.

    Args:
        model: timm's name of a network. Its weights are random.
        size: Side of the images in pixels.
        images: Number of images attacked in batches of `batch`.
        singles: Number of images attacked one at a time; 0 leaves this row out.
    """
    torch.manual_seed(0)
    place = find_device(device)
    network = create_model(model, 10, image_size=size).to(place).eval()
    nn.init.normal_(network.backbone.get_classifier().weight)
    image = torch.rand(images, 3, size, size, device=place)
    label = torch.arange(images, device=place) % 10

    def seconds_each(images: int, batch: int) -> float:
        start = time.perf_counter()
        for rows in torch.arange(images).split(batch):
            attack(network, image[rows], label[rows]).intersection.cpu()
        return (time.perf_counter() - start) / images

    seconds_each(batch, batch)  # the first call is slow, because it loads kernels
    rows = [{"batch": batch, "s_per_image": seconds_each(images, batch)}]
    if singles:
        rows.append({"batch": 1, "s_per_image": seconds_each(singles, 1)})
    return [row | {"ratio": row["s_per_image"] / rows[0]["s_per_image"]} for row in rows]
