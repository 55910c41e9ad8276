"""Synthetic ground truths, maps and metadata files, for tests of scores."""

import numpy as np

from wsol.annotations.ground_truth import make_ground_truth

THRESHOLDS = np.arange(0, 1, 0.01)


def birds(boxes, labels=None, size=(20, 16), classes=3):
    """Ground truth of images of one size, with one box each."""
    names = [f"{index}.jpg" for index in range(len(boxes))]
    labels = [index % classes for index in range(len(boxes))] if labels is None else labels
    sizes = [size] * len(boxes)
    return make_ground_truth(
        "here", names, labels, sizes, [[b] for b in boxes], list("abcdefgh")[:classes]
    )


def planted(box, size=(20, 16)):
    heatmap = np.zeros(size[::-1])
    x0, y0, x1, y1 = box
    heatmap[y0:y1, x0:x1] = 1
    return heatmap


def write_published(folder, truth):
    """The published evaluator's metadata files of a truth with one box each."""
    folder.mkdir(parents=True)
    rows = list(zip(truth.names, truth.labels, truth.sizes, truth.boxes[:, 0], strict=True))
    lines = {
        "image_ids.txt": [name for name, *_ in rows],
        "class_labels.txt": [f"{name},{label}" for name, label, *_ in rows],
        "image_sizes.txt": [f"{name},{w},{h}" for name, _, (w, h), _ in rows],
        "localization.txt": [f"{n},{','.join(f'{v:g}' for v in box)}" for n, _, _, box in rows],
    }
    for file, content in lines.items():
        (folder / file).write_text("\n".join(content))
    return folder
