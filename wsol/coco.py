"""Boxes in COCO's format, for other programs."""

from collections.abc import Sequence
from typing import Any

from wsol.localizer import Localization


def coco_dataset(
    found: Sequence[tuple[str, Localization]], class_names: Sequence[str]
) -> dict[str, Any]:
    """A COCO data set: boxes [x, y, width, height] in original pixels, each with a `score`.

    Image ids count from 1 in the order given; category ids are label + 1. An image without a box
    has no annotation. pycocotools opens the whole as ground truth, its `annotations` as results.
    """
    images, annotations = [], []
    for identity, (name, place) in enumerate(found, start=1):
        width, height = place.size
        images.append({"id": identity, "file_name": name, "width": width, "height": height})
        x0, y0, x1, y1 = place.box
        if x1 > x0 and y1 > y0:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": identity,
                    "category_id": place.label + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "score": place.score,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}
