"""The principal component of a run's network, for heatmaps by deep descriptor transforming."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache

from torch.utils.data import DataLoader, Subset

from robust_training.atomic_io import write_text
from robust_training.models.classifier import Classifier
from wsol.data.dataset import spread_evenly
from wsol.data.loaders import DataConfig
from wsol.data.text_files import naming, read_json
from wsol.heatmaps.ddt import principal_component
from wsol.heatmaps.heatmap import Component
from wsol.localizer.saved_models import model_folder, run_data

COMPONENT = "ddt.json"  # in a model folder: the component of its network
_IMAGES = 100


def component_finder(
    folder: str | os.PathLike | None, model: Classifier, data: DataConfig | None = None
) -> Callable[[], Component]:
    """Returns a function that finds a network's component once, for `with_component`.

    The function reads ddt.json in the model folder. If this file is missing, the function computes
    the component from training images, and writes the file.

    Args:
        folder: Folder of the run or of its best model. If None, no file is read or written.
        data: The data set whose training images are used, if the folder is not that of a run.
    """

    @cache
    def find() -> Component:
        if folder is None:
            return _computed(model, data)
        file = model_folder(folder) / COMPONENT
        if not file.is_file():
            found = _computed(model, run_data(folder) or data)
            with suppress(OSError):  # a folder that nobody may write to is no obstacle
                write_text(file, json.dumps(asdict(found)))
            return found
        with naming(f"{file} is not a principal component"):
            kept = read_json(file)
            return Component(*(tuple(map(float, kept[name])) for name in ("mean", "axis")))

    return find


def _computed(model: Classifier, data: DataConfig | None) -> Component:
    if data is None:
        raise ValueError(
            f"there is no {COMPONENT} beside the model, and ddt needs training images to find its "
            "principal component: evaluate the model with ddt on a data set (--root) first"
        )
    images = replace(data, image_size=model.image_size).dataset("train")
    some = Subset(images, spread_evenly(len(images), _IMAGES))
    model = model.eval()
    return principal_component(
        model, (batch["image"].to(model.device) for batch in DataLoader(some, data.batch_size))
    )
