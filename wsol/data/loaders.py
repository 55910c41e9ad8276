"""Data sets and loaders from a few settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import albumentations as A
from jsonargparse import ArgumentError, ArgumentParser
from torch.utils.data import DataLoader

from wsol.data.dataset import DataSet, Example, Images, Split
from wsol.data.layouts import find_layout
from wsol.data.text_files import read_yaml
from wsol.data.transforms import eval_transform, train_transform


@dataclass(frozen=True)
class DataConfig:
    """Where the images are and how they are fed.

    Attributes:
        root: Folder in CUB-200-2011's layout, or of train/<class>/ and test/<class>/ with images.
        image_size: Side of the network's input in pixels.
        resize: Side before the random crop of training; None is 8/7 of image_size (256 for 224).
        val_share: Share of each class's training images held out for validation, where a folder
            has no val/ of its own.
        batch_size: Images per step and process.
        num_workers: Loader processes; 0 loads in the main one.
        cache: Folder for decoded, resized images, 2 GB for CUB at 224 px; None decodes each time.
    """

    root: str
    image_size: int = 224
    resize: int | None = None
    val_share: float = 0.1
    batch_size: int = 32
    num_workers: int = 2
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_workers < 0 or self.image_size < 1:
            raise ValueError(
                "data: batch_size and image_size must be at least 1, num_workers at least 0"
            )

    def dataset(self, split: Split) -> DataSet:
        """The split as evaluation sees it: whole frames."""
        transform = eval_transform(self.image_size)
        return self._dataset(split, transform, self.image_size)

    def loader(self, split: Split) -> DataLoader:
        """Whole frames in order."""
        return self.in_order(self.dataset(split))

    def in_order(self, images: Images) -> DataLoader:
        """Of images that a transform has made equal in size."""
        return DataLoader(images, self.batch_size, num_workers=self.num_workers)

    def training_loader(self) -> DataLoader:
        """Augmented training images in random order; a last, incomplete batch is dropped."""
        return self._shuffled(self._dataset("train", *self._augmentation()))

    def loader_of(
        self, examples: Sequence[Example], *, training: bool, upright: bool = False
    ) -> DataLoader:
        """Of images whose labels and boxes `examples` say, `upright` as `Images` has it: as
        `training_loader` feeds them, or whole frames in order."""
        whole = eval_transform(self.image_size), self.image_size
        transform, resized = self._augmentation() if training else whole
        images = Images(
            examples, upright=upright, transform=transform, cache=self.cache, cache_size=resized
        )
        return self._shuffled(images) if training else self.in_order(images)

    def _augmentation(self) -> tuple[A.Compose, int]:
        resize = self.resize or round(self.image_size * 8 / 7)
        return train_transform(self.image_size, resize), resize

    def _shuffled(self, dataset: Images) -> DataLoader:
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

    def _dataset(self, split: Split, transform: A.Compose, resized: int) -> DataSet:
        return find_layout(self.root)(
            self.root,
            split,
            transform=transform,
            val_share=self.val_share,
            cache=self.cache,
            cache_size=resized,
        )


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
        found = parser.parse_object({"data": tree["data"]})
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
