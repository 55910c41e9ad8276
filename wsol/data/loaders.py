"""Data sets and loaders from a few settings."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from torch.utils.data import DataLoader

from robust_training.class_path import path_of_class
from robust_training.training.batches import SeededBatches
from wsol.data.benchmark_folders import ILSVRC, PublishedLayout, VOCFolder
from wsol.data.cub import CUB200, find_root
from wsol.data.dataset import Example, ImageDataset, LabelledImages, Split
from wsol.data.image_folder import ImageFolder
from wsol.data.text_files import read_yaml
from wsol.data.transforms import Transform, eval_transform, train_transform

# Open files that a loader process needs here, and that the rest needs: PyTorch takes one for each
# tensor of a batch on its way between processes. Two processes were measured to need 30 in all.
_FILES_PER_PROCESS = 16
_OTHER_FILES = 16
_RENAMED = {"data": {"val_share": "val_fraction"}, "model": {"front": "log_gradient"}}
_LAYOUTS: dict[str, type[ImageDataset]] = {
    "metadata/*/image_ids.txt": PublishedLayout,
    "Data/CLS-LOC/train": ILSVRC,
    "Annotations": VOCFolder,
    "train": ImageFolder,
    "test": ImageFolder,
}


@dataclass(frozen=True)
class DataConfig:
    """Settings of a data set and its loaders.

    Attributes:
        root: Folder in CUB-200-2011's layout, or of train/<class>/ and test/<class>/ with images,
            in another layout of `find_layout`, or in the layout that `class_path` reads.
        image_size: Side of the network's input in pixels.
        resize: Side before the random crop of training. If None, 8/7 of image_size (256 for 224).
        horizontal_flip: Whether half of the training images are mirrored. Set it to false if the
            mirror image can belong to another class, as with traffic signs and text.
        val_fraction: Fraction of each class's training images held out for validation, if the data
            set has no validation images of its own.
        batch_size: Images per step and process.
        num_workers: Number of loader processes. 0 loads in the main process. See
            `loader_processes`.
        class_path: Subclass of `wsol.data.dataset.ImageDataset` that reads `root`. If None, the
            layout is recognized by its files.
    """

    root: str
    image_size: int = 224
    resize: int | None = None
    horizontal_flip: bool = True
    val_fraction: float = 0.1
    batch_size: int = 32
    num_workers: int = 2
    class_path: type[ImageDataset] | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_workers < 0 or self.image_size < 1:
            raise ValueError(
                "data: batch_size and image_size must be at least 1, num_workers at least 0"
            )

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, with the class's import path."""
        kind = self.class_path
        path = None if kind is None else path_of_class(kind)
        return asdict(replace(self, class_path=None)) | {"class_path": path}

    def dataset(self, split: Split) -> ImageDataset:
        """The split for evaluation: images are not cropped."""
        return self._dataset(split, eval_transform(self.image_size))

    def loader(self, split: Split) -> DataLoader:
        """Loads whole frames in order."""
        return self.in_order(self.dataset(split))

    def in_order(self, images: LabelledImages) -> DataLoader:
        """Loads images in order; their transform must make them equal in size."""
        return DataLoader(images, self.batch_size, num_workers=loader_processes(self.num_workers))

    def training_loader(self) -> DataLoader:
        """Loads augmented training images in random order, without a last, incomplete batch."""
        dataset = self._dataset("train", self._augmentation())
        self._require_one_batch(dataset)
        batches = SeededBatches(len(dataset), self.batch_size)
        return DataLoader(
            dataset, batch_sampler=batches, num_workers=loader_processes(self.num_workers)
        )

    def loader_of(
        self, examples: Sequence[Example], *, training: bool, upright: bool = False
    ) -> DataLoader:
        """Loads `examples`, as `training_loader` does or as whole frames in order.

        Args:
            upright: The argument of `LabelledImages`.
        """
        transform = self._augmentation() if training else eval_transform(self.image_size)
        images = LabelledImages(examples, upright=upright, transform=transform)
        if not training:
            return self.in_order(images)
        self._require_one_batch(images)
        return DataLoader(
            images,
            self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=loader_processes(self.num_workers),
        )

    def _augmentation(self) -> Transform:
        resize = self.resize or round(self.image_size * 8 / 7)
        return train_transform(self.image_size, resize, horizontal_flip=self.horizontal_flip)

    def _require_one_batch(self, images: LabelledImages) -> None:
        if len(images) < self.batch_size:
            raise ValueError(
                f"{len(images)} training images are fewer than one batch of {self.batch_size}; "
                "give a smaller batch_size"
            )

    def _dataset(self, split: Split, transform: Transform) -> ImageDataset:
        kind = self.class_path or find_layout(self.root)
        return kind(self.root, split, transform=transform, val_fraction=self.val_fraction)


def loader_processes(wanted: int) -> int:
    """Number of loader processes: `wanted`, or fewer if this process may not open enough files.

    Warns if it is fewer. The batches are the same with any number of processes.
    """
    try:
        import resource
    except ImportError:  # there is no such limit on Windows
        return wanted
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if wanted == 0 or limit == resource.RLIM_INFINITY:
        return wanted
    free = limit - len(os.listdir("/dev/fd")) - _OTHER_FILES
    count = min(wanted, max(0, free // _FILES_PER_PROCESS))
    if count < wanted:
        warnings.warn(
            f"only {limit} files may be open, too few for {wanted} loader processes, so {count} "
            f"are used; `ulimit -n {max(1024, 2 * limit)}` before the command allows more",
            stacklevel=2,
        )
    return count


def find_layout(root: str | Path) -> type[ImageDataset]:
    """Finds the class that reads a folder, by the first of its files or folders that exists.

    They are images.txt (`CUB200`), metadata/<split>/image_ids.txt (`PublishedLayout`),
    Data/CLS-LOC/train (`ILSVRC`), Annotations (`VOCFolder`), and train or test (`ImageFolder`).
    Raises ValueError if it has none of them. The message names what was expected."""
    try:
        find_root(Path(root))
    except ValueError as error:
        for pattern, kind in _LAYOUTS.items():
            if any(Path(root).glob(pattern)):
                return kind
        raise ValueError(
            f"no data set at {root}: there is no images.txt in it (CUB-200-2011's layout), and no "
            "folder train or test with a folder of images for each class"
        ) from error
    return CUB200


def current_settings(settings: Any) -> Any:
    """Returns a run's settings under their current names, if an earlier version wrote them."""
    if not isinstance(settings, Mapping):
        return settings  # the reader reports the mistake
    renamed = {
        part: {names.get(name, name): value for name, value in settings[part].items()}
        for part, names in _RENAMED.items()
        if isinstance(settings.get(part), Mapping)
    }
    renamed.get("data", {}).pop("cache", None)
    return {**settings, **renamed}


def read_data_config(run: Path) -> DataConfig:
    """Reads the data settings in a run's config.yaml. Raises ValueError if it is not the config of
    a run."""
    file = run / "config.yaml"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DataConfig, "data")
    tree = read_yaml(file)
    try:
        found = parser.parse_object({"data": current_settings(tree)["data"]})
        return DataConfig(**found.data.as_dict())
    except (ValueError, KeyError, TypeError, AttributeError, ArgumentError) as error:
        raise ValueError(f"{file} is not the config of a run: {error}") from error
