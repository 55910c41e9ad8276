"""Data sets and loaders from a few settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from torch.utils.data import DataLoader

from wsol.data.cub import CUB200, find_root
from wsol.data.dataset import Example, ImageDataset, LabelledImages, Split
from wsol.data.image_folder import ImageFolder
from wsol.data.text_files import read_yaml
from wsol.data.transforms import Transform, eval_transform, train_transform

_RENAMED = {"val_share": "val_fraction"}


@dataclass(frozen=True)
class DataConfig:
    """Where the images are and how they are fed.

    Attributes:
        root: Folder in CUB-200-2011's layout, or of train/<class>/ and test/<class>/ with images.
        image_size: Side of the network's input in pixels.
        resize: Side before the random crop of training; None is 8/7 of image_size (256 for 224).
        val_fraction: Share of each class's training images held out for validation, where a folder
            has no val/ of its own.
        batch_size: Images per step and process.
        num_workers: Loader processes; 0 loads in the main one.
        cache: Folder for decoded, resized images, 2 GB for CUB at 224 px; None decodes each time.
    """

    root: str
    image_size: int = 224
    resize: int | None = None
    val_fraction: float = 0.1
    batch_size: int = 32
    num_workers: int = 2
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_workers < 0 or self.image_size < 1:
            raise ValueError(
                "data: batch_size and image_size must be at least 1, num_workers at least 0"
            )

    def dataset(self, split: Split) -> ImageDataset:
        """The split as evaluation sees it: whole frames."""
        transform = eval_transform(self.image_size)
        return self._dataset(split, transform, self.image_size)

    def loader(self, split: Split) -> DataLoader:
        """Whole frames in order."""
        return self.in_order(self.dataset(split))

    def in_order(self, images: LabelledImages) -> DataLoader:
        """Of images that a transform has made equal in size."""
        return DataLoader(images, self.batch_size, num_workers=self.num_workers)

    def training_loader(self) -> DataLoader:
        """Augmented training images in random order; a last, incomplete batch is dropped."""
        return self._shuffled(self._dataset("train", *self._augmentation()))

    def loader_of(
        self, examples: Sequence[Example], *, training: bool, upright: bool = False
    ) -> DataLoader:
        """Of images whose labels and boxes `examples` say, `upright` as `LabelledImages` has it: as
        `training_loader` feeds them, or whole frames in order."""
        whole = eval_transform(self.image_size), self.image_size
        transform, resized = self._augmentation() if training else whole
        images = LabelledImages(
            examples, upright=upright, transform=transform, cache=self.cache, cache_size=resized
        )
        return self._shuffled(images) if training else self.in_order(images)

    def _augmentation(self) -> tuple[Transform, int]:
        resize = self.resize or round(self.image_size * 8 / 7)
        return train_transform(self.image_size, resize), resize

    def _shuffled(self, dataset: LabelledImages) -> DataLoader:
        if len(dataset) < self.batch_size:
            raise ValueError(
                f"{len(dataset)} training images are fewer than one batch of {self.batch_size}; "
                "give a smaller batch_size"
            )
        return DataLoader(
            dataset,
            self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=self.num_workers,
            persistent_workers=False,
        )

    def _dataset(self, split: Split, transform: Transform, resized: int) -> ImageDataset:
        return find_layout(self.root)(
            self.root,
            split,
            transform=transform,
            val_fraction=self.val_fraction,
            cache=self.cache,
            cache_size=resized,
        )


def current_settings(settings: Any) -> Any:
    """A run's settings under today's names, where an earlier version wrote them under others."""
    if not isinstance(settings, Mapping) or not isinstance(settings.get("data"), Mapping):
        return settings  # the reader says what is wrong with it
    data = {_RENAMED.get(name, name): value for name, value in settings["data"].items()}
    return {**settings, "data": data}


def read_data_config(run: Path) -> DataConfig:
    """That of a run's config.yaml.

    Raises:
        ValueError: it is not the config of a run.
    """
    file = run / "config.yaml"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DataConfig, "data")
    tree = read_yaml(file)
    try:
        found = parser.parse_object({"data": current_settings(tree)["data"]})
        return DataConfig(**found.data.as_dict())
    except (ValueError, KeyError, TypeError, AttributeError, ArgumentError) as error:
        raise ValueError(f"{file} is not the config of a run: {error}") from error


def scoring_data(run: Path, root: str | None, batch_size: int, image_size: int) -> DataConfig:
    """The data that a run, or a model folder with `root`, is scored on; each image is read once.

    Raises:
        ValueError: neither the folder nor `root` names the data.
    """
    if root is None and not (run / "config.yaml").is_file():
        raise ValueError(f"{run} has no config.yaml that names its data; give --root")
    config = read_data_config(run) if (run / "config.yaml").is_file() else DataConfig(root)
    root = root or config.root
    return replace(config, root=root, batch_size=batch_size, image_size=image_size, cache=None)


def find_layout(root: str | Path) -> type[CUB200] | type[ImageFolder]:
    """CUB-200-2011's, where images.txt is found; else a plain folder, where train/ is.

    Raises:
        ValueError: neither is; says what was looked for.
    """
    try:
        find_root(Path(root))
    except ValueError as error:
        if (Path(root) / "train").is_dir():
            return ImageFolder
        raise ValueError(
            f"no data set at {root}: there is no images.txt in it (CUB-200-2011's layout), and no "
            "folder train with a folder of images for each class"
        ) from error
    return CUB200
