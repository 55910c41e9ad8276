"""Data sets cropped to found boxes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.commands import tool
from wsol import CUB200, ImageFolder
from wsol.annotations.crops import square_crop, write_crops


def found_boxes(root, file, drop=()):
    """The true boxes of all images as a localizer would write them."""
    images, annotations = [], []
    for split in ("train", "test"):
        for example in CUB200(root, split).examples:
            width, height = Image.open(example.path).size
            identity = example.identity
            images.append(
                {"id": identity, "file_name": example.name, "width": width, "height": height}
            )
            x0, y0, x1, y1 = example.boxes[0]
            if identity not in drop:
                annotations.append(
                    {
                        "image_id": identity,
                        "category_id": 1,
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "score": 1.0,
                    }
                )
    categories = [{"id": 1, "name": "object"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content))
    return file


def test_crops_hold_the_objects(toy, tmp_path):
    whole = CUB200(toy, "test")
    boxes = found_boxes(toy, tmp_path / "boxes.json", drop={whole.examples[0].identity})
    write_crops(toy, boxes=boxes, output=tmp_path / "crops", margin=0.2)
    for split in ("train", "val", "test"):
        before = CUB200(toy, split, val_fraction=0.1)
        after = ImageFolder(tmp_path / "crops", split, val_fraction=0.1)
        assert [*after.classes] == [*before.classes]
        assert len(after) == len(before)
        originals = {example.path.name: index for index, example in enumerate(before.examples)}
        for index, example in enumerate(after.examples):
            own = originals[example.path.name]
            assert example.label == before.examples[own].label
            x0, y0, x1, y1 = before.examples[own].boxes[0]
            pixels = after.pixels(index)
            if split == "test" and before.examples[own].identity == whole.examples[0].identity:
                assert pixels.shape == before.pixels(own).shape
                left, top = 0, 0
            else:
                assert max(pixels.shape) <= 1.2 * max(x1 - x0, y1 - y0) + 2
                frame = np.array([0, 0, *before.pixels(own).shape[1::-1]])
                left, top = square_crop(np.array([x0, y0, x1, y1]), frame, 0.2)[:2]
            # the same object: JPEG changes pixels little
            new = pixels[int(y0 - top) : int(y1 - top), int(x0 - left) : int(x1 - left)]
            old = before.pixels(own)[int(y0) : int(y1), int(x0) : int(x1)]
            assert np.abs(new.astype(int) - old).mean() < 8


@given(st.tuples(*[st.integers(0, 400)] * 2, *[st.integers(1, 400)] * 2), st.integers(0, 20))
def test_square_crop(tenths, margin):
    corner, margin = np.array(tenths) / 10, margin / 10
    frame = np.array([0, 0, 100, 90])
    box = np.array([*corner[:2], corner[0] + corner[2], corner[1] + corner[3]])
    x0, y0, x1, y1 = square_crop(box, frame, margin)
    assert x0 <= box[0]
    assert y0 <= box[1]
    assert x1 >= box[2]
    assert y1 >= box[3]
    assert 0 <= x0 < x1 <= 100
    assert 0 <= y0 < y1 <= 90
    if x0 > 0 and y0 > 0 and x1 < 100 and y1 < 90:
        assert abs((x1 - x0) - (y1 - y0)) <= 1
        assert abs((x1 - x0) - (1 + margin) * max(corner[2:])) <= 2


def test_square_crop_by_hand():
    frame = np.array([0, 0, 100, 80])
    box = np.array([40, 30, 60, 40])
    assert square_crop(box, frame, 0).tolist() == [40, 25, 60, 45]
    assert square_crop(box, frame, 0.5).tolist() == [35, 20, 65, 50]
    assert square_crop(np.array([80, 60, 100, 80]), frame, 1).tolist() == [70, 50, 100, 80]
    assert square_crop(np.zeros(4), frame, 1).tolist() == [0, 0, 100, 80]


def test_mistakes_leave_nothing(toy, tmp_path):
    boxes = found_boxes(toy, tmp_path / "boxes.json")
    content = json.loads(boxes.read_text())
    names = sorted({example.name.split("/")[0] for example in CUB200(toy, "train").examples})
    content["categories"] = [{"id": n, "name": name} for n, name in enumerate(names, start=1)]
    content["annotations"] *= 2
    boxes.write_text(json.dumps(content))
    command = ("prepare_data.py", "crop", toy, "--boxes", boxes, "--output", tmp_path / "crops")
    status, _, error = tool(*command)
    assert status == 2
    assert "several boxes" in error
    assert tool(*command, "--margin", -1)[0] == 2
    assert tool(*command[:4], tmp_path / "none.json", *command[5:])[0] == 2
    assert [*tmp_path.iterdir()] == [boxes]  # no unfinished folder either
    (tmp_path / "crops").mkdir()
    with pytest.raises(ValueError, match="already exists"):
        write_crops(toy, boxes=boxes, output=tmp_path / "crops")
