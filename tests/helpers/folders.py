"""Small data sets that are plain folders of classes."""

import shutil

from PIL import Image

from wsol.data.cub import CUB200

HEADER = "image,x0,y0,x1,y1"


def write_boxes(root, rows):
    lines = [HEADER, *(",".join(map(str, row)) for row in rows)]
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")


def write_image(file, size=(6, 4)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file)


def write_small(root):
    """Two classes of two images of 6 x 4 pixels, and one of each for test."""
    for name in ("train/a/1", "train/a/2", "train/b/1", "train/b/2", "test/a/1", "test/b/1"):
        write_image(root / f"{name}.png")
    return root


def write_plain(toy, root, splits=("train", "test"), keep=lambda label: True):
    """Images of a data set in CUB's layout as a plain folder, with a box for each image."""
    rows = []
    for split in splits:
        for example in filter(lambda each: keep(each.label), CUB200(toy, split).examples):
            name = f"{split}/{example.name}"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(example.path, root / name)
            rows.append((name, *example.boxes[0]))
    write_boxes(root, rows)
    return root
