"""docs/guide.md quotes what the tools say of mistakes."""

import shutil

import pytest

from robust_training.models.creating import create_model
from tests.helpers.commands import ROOT
from tests.helpers.folders import HEADER, write_image
from wsol.data.image_folder import ImageFolder
from wsol.data.loaders import DataConfig
from wsol.evaluation.split_selection import require_classes, select_splits


def rows():
    """The guide's last table: a mistake -> its line."""
    text = (ROOT / "docs" / "guide.md").read_text().split("| what happened | the line |")[1]
    lines = [line for line in text.split("\n\n")[0].splitlines() if line.count("|") == 3]
    return {line.split("|")[1].strip(): line.split("|")[2].strip() for line in lines[1:]}


def boxes(*lines):
    return lambda data: (data / "boxes.csv").write_text("\n".join(lines))


def remove(name):
    return lambda data: shutil.rmtree(data / name)


def image(name):
    return lambda data: write_image(data / name)


def read(split):
    return lambda: list(ImageFolder("my_data", split, val_fraction=0.1 if split == "val" else 0))


def config(root="my_data", batch_size=20):
    return DataConfig(root, image_size=32, batch_size=batch_size, num_workers=0)


def other_classes():
    model = create_model("test_resnet", 3, image_size=32)
    require_classes("runs/standard", model, ImageFolder("my_data", "test"))


def nothing_to_score():
    raise ValueError(*select_splits(config(), None).notes)


MISTAKES = {
    "the folder is somewhere else": (lambda data: None, lambda: config("my_dta").dataset("train")),
    "images lie beside": (image("train/1.jpg"), read("train")),
    "one class": (remove("train/heron"), read("train")),
    "an empty class": (lambda data: (data / "train/swan").mkdir(), read("train")),
    "a class is spelled": (image("test/Heron/1.jpg"), read("test")),
    "nothing is held out": (remove("train/gull/more"), read("val")),
    "fewer images": (lambda data: None, lambda: config().training_loader()),
    "a damaged photo": (lambda d: (d / "train/gull/4.jpg").write_text("x"), read("train")),
    "a table saved": (boxes("image;x0;y0;x1;y1"), read("test")),
    "a photo was renamed": (boxes(HEADER, *[""] * 5, "test/gull/4.jpg,1,2,30,40"), read("test")),
    "width and height": (boxes(HEADER, "test/gull/1.jpg,50,50,20,30"), read("test")),
    "boxes of a larger": (boxes(HEADER, "test/gull/1.jpg,0,0,300,40"), read("test")),
    "no boxes": (lambda data: None, nothing_to_score),
    "classes were added": (lambda data: None, other_classes),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_line_is_the_guides(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "my_data"
    for name in ("gull/1", "gull/2", "gull/4", *(f"gull/more/{i}" for i in range(5)), "heron/1"):
        write_image(data / "train" / f"{name}.jpg")
    for number in range(2, 5):
        write_image(data / "train" / "heron" / f"{number}.jpg")
    write_image(data / "test" / "gull" / "1.jpg", (256, 192))
    change, act = MISTAKES[mistake]
    change(data)
    with pytest.raises(ValueError, match=".") as raised:
        act()
    (line,) = (line for what, line in rows().items() if what.startswith(mistake))
    assert line.startswith(str(raised.value))


def test_every_line_of_the_guide_is_tested():
    assert len(rows()) == len(MISTAKES)
