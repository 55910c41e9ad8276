"""Speed of the loader of training images."""

import time
from typing import Any

from wsol.data.loaders import DataConfig


def time_loader(data: DataConfig) -> list[dict[str, Any]]:
    """Images per second of the training loader with augmentation, in its second epoch."""
    start = time.perf_counter()
    images = data.training_loader()
    opened = time.perf_counter() - start
    for _ in images:  # the first epoch warms up
        pass
    start = time.perf_counter()
    count = sum(len(batch["label"]) for batch in images)
    seconds = time.perf_counter() - start
    return [{"opening_s": opened, "images": count, "images_per_s": count / seconds}]
