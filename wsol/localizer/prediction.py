"""What is found in images, whoever finds it: reading, batching, and one answer for each image."""

import difflib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import cv2
import numpy as np
import torch

from wsol.data.inputs import ImageLike, each_image, read_pixels
from wsol.data.transforms import eval_transform

Box = tuple[float, float, float, float]
Label = int | str
OBJECT = "object"  # the class of a box of whatever class


@dataclass(frozen=True)
class Localization:
    """What was found in one image.

    Attributes:
        box: Half-open (x0, y0, x1, y1) in the image's own pixels; zeros where there is none.
        label: Class that was looked for: the predicted one unless another was asked for. None of a
            detector that knows no classes or found nothing.
        class_name: Its name, or the number as text; `OBJECT` where label is None.
        score: Its probability; a detector's that the box shows it, 1 where it knows no classes.
        heatmap: float64 (S,S) in [0,1] at the model's input size; None of a detector.
        size: (width, height) of the image.
        others: Further boxes that were asked for, the largest contour's first, or a detector's
            likeliest.
        other_scores: A detector's, of `others`. A class's probability is that of all boxes.
        path: Of an image that came as a file.
    """

    box: Box
    label: int | None
    class_name: str
    score: float
    heatmap: np.ndarray | None
    size: tuple[int, int]
    others: tuple[Box, ...] = ()
    other_scores: tuple[float, ...] = ()
    path: Path | None = None

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All of them, the best first; none where nothing was found."""
        return (self.box, *self.others) if any(self.box) else ()

    @property
    def scores(self) -> tuple[float, ...]:
        """Of `boxes`."""
        others = self.other_scores or (self.score,) * len(self.others)
        return (self.score, *others) if self.boxes else ()

    def full_heatmap(self) -> np.ndarray:
        """float64 (height,width) in [0,1]: the heatmap over the image's own pixels.

        Raises:
            ValueError: there is none.
        """
        if self.heatmap is None:
            raise ValueError("a detector finds boxes without a heatmap")
        return cv2.resize(self.heatmap, self.size, interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Ready:
    """An image at the network's size: float32 (3,S,S) in [0,1]; label None is the predicted one."""

    image: torch.Tensor
    label: int | None
    size: tuple[int, int]
    path: Path | None


class Finder(ABC):
    """Finds boxes in images. Subclasses say in which size, which classes they know, and how."""

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side of the square images that the network takes."""

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """One for each label; numbers as text where the names are not known."""

    @abstractmethod
    def _find(self, batch: list[Ready], boxes: int) -> Iterator[Localization]: ...

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        labels: Label | Iterable[Label | None] | None = None,
        boxes: int = 1,
        batch_size: int = 32,
        on_unreadable: Callable[[ValueError], None] | None = None,
    ) -> Iterator[Localization]:
        """Localize images in order, a batch at a time; nothing is kept of those given out.

        Args:
            images: One or many: paths, folders (all images in them, sorted), PIL images, uint8
                arrays (H,W,3), float tensors (3,H,W) in [0,1], all RGB. Camera orientation of files
                is applied, so boxes are in the image as viewers show it.
            labels: Class to look for, by number or name: one for all, or one for each image. None
                is the predicted one.
            boxes: At most so many in each image, of the largest contours or the likeliest.
            on_unreadable: Called with the error of an image that cannot be read, which is then left
                out; None raises it.

        Raises:
            ValueError: what is no image, a class that is not known, or another number of labels
                than of images.
        """
        if boxes < 1 or batch_size < 1:
            raise ValueError(f"boxes and batch_size must be at least 1, not {boxes}, {batch_size}")
        one = labels is None or isinstance(labels, Label | np.integer)
        wanted = repeat(self._index(labels)) if one else map(self._index, labels)
        ready = self._ready(images, wanted, on_unreadable)
        batches = iter(lambda: list(islice(ready, batch_size)), [])
        return (place for batch in batches for place in self._find(batch, boxes))

    def _ready(
        self,
        images: ImageLike | Iterable[ImageLike],
        wanted: Iterator[int | None],
        on_unreadable: Callable[[ValueError], None] | None,
    ) -> Iterator[Ready]:
        transform = eval_transform(self.image_size)
        for image in each_image(images):
            label = next(wanted, -1)
            if label == -1:
                raise ValueError("there are fewer labels than images")
            try:
                pixels = read_pixels(image)
            except ValueError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(error)
                continue
            resized = torch.tensor(transform(image=pixels, bboxes=[])["image"])
            unit = resized if resized.is_floating_point() else resized.float() / 255
            path = Path(image) if isinstance(image, str | os.PathLike) else None
            yield Ready(unit.permute(2, 0, 1), label, pixels.shape[1::-1], path)
        if not isinstance(wanted, repeat) and next(wanted, -1) != -1:
            raise ValueError("there are more labels than images")

    def _index(self, label: Label | None) -> int | None:
        """Of a class by number or name."""
        if label is None:
            return None
        names = list(self.class_names)
        if label in names:
            return names.index(label)
        if isinstance(label, str) and not label.isdecimal():
            near = difflib.get_close_matches(label, names, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ValueError(f"the model knows no class {label!r}{hint}")
        if not 0 <= int(label) < len(names):
            raise ValueError(f"class {label} is not in 0 to {len(names) - 1}")
        return int(label)
