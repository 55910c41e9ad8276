"""Ground truth from files: the published evaluator's text files, a data set, or COCO's JSON."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wsol.annotations.coco_reading import read_coco_ground_truth
from wsol.annotations.ground_truth import (
    GroundTruth,
    MaskFiles,
    dataset_ground_truth,
    make_ground_truth,
    with_masks,
)
from wsol.data.dataset import MOST_CLASSES, EmptySplitError, Split
from wsol.data.loaders import find_layout
from wsol.data.names import KnownNames, path_below
from wsol.data.text_files import naming, number, read_rows


def read_ground_truth(
    place: str | Path, split: Split, *, val_fraction: float = 0.1, masks: str | Path | None = None
) -> GroundTruth:
    """Reads the ground truth of a split.

    Args:
        place: A COCO file, which is read for every split; a folder of the published evaluator's
            files, or a folder with such a folder for each split; or a data set for `find_layout`.
            Images of a data set without a box are left out, unless no image has a box.
        val_fraction: Fraction of a data set's training images that are held out for validation.
        masks: Folder of masks: those that the published evaluator's files list, or else
            <image>.png for each image. If None, masks that are listed lie below those files.

    Raises:
        EmptySplitError: a data set has no images in the split.
        ValueError: there is none of these at `place`, or an image has no mask in `masks`. The
            message lists what was expected.
    """
    place = Path(place)
    for folder in (place / split, place):
        if (folder / "image_ids.txt").is_file():
            return read_published_metadata(folder, masks)
    if place.is_file():
        truth = read_coco_ground_truth(place)
    elif not place.is_dir():
        raise ValueError(f"there is no file or folder {place}")
    else:
        try:
            dataset = find_layout(place)(place, split, val_fraction=val_fraction)
        except EmptySplitError:
            raise
        except ValueError as error:
            raise ValueError(
                f"{place} holds no image_ids.txt, no {split}/image_ids.txt and no data set "
                f"({error})"
            ) from error
        truth = dataset_ground_truth(dataset.boxed() or dataset)
    return truth if masks is None else with_masks(truth, masks)


def read_published_metadata(folder: str | Path, masks: str | Path | None = None) -> GroundTruth:
    """Reads the published evaluator's text files (clovaai/wsolevaluation).

    They are image_ids.txt, class_labels.txt, image_sizes.txt and localization.txt. The last has
    boxes (`<id>,x0,y0,x1,y1`, several lines for several boxes) or mask files (`<id>,<mask>,`, a
    line for each object; in one line of an image, its ignore mask follows). Boxes are read as
    half-open; CUB's boxes are half-open. With masks alone, image_sizes.txt may be missing, or empty
    as for OpenImages.

    Args:
        masks: Folder below which the listed masks lie; if None, `folder`. If none is listed: folder
            of masks <image>.png.

    Raises:
        ValueError: a file is missing or malformed, or has no line for an image. The message names
            the file and the line.
    """
    folder = Path(folder)
    root = folder if masks is None else Path(masks)
    names = [fields[0] for _, fields in read_rows(folder / "image_ids.txt", 1)]
    labels = _table(folder / "class_labels.txt", 1, names)
    file = folder / "localization.txt"
    boxes: dict[str, list[list[float]]] = {name: [] for name in names}
    objects: dict[str, list[Path]] = {name: [] for name in names}
    ignore: dict[str, Path] = {}
    for row, name, fields in _known_lines(file, (3, 5), names):
        if len(fields) == 4:
            boxes[name].append(_numbers(file, row, fields))
            continue
        with naming(f"{file}, line {row}"):
            objects[name].append(path_below(root, fields[0]))
            if fields[1] and name in ignore:
                raise ValueError(f"image {name} has two ignore masks")
            if fields[1]:
                ignore[name] = path_below(root, fields[1])
    for name in names:
        if not (boxes[name] or objects[name]):
            raise ValueError(f"{file}: no line for image {name}")
    listed = [MaskFiles(tuple(objects[name]), ignore.get(name), cut=0) for name in names]
    sizes_file = folder / "image_sizes.txt"
    is_sized = any(boxes.values()) or (sizes_file.is_file() and read_rows(sizes_file, 3))
    sizes = _table(sizes_file, 2, names) if is_sized else {name: [0, 0] for name in names}
    label_column = [int(labels[name][0]) for name in names]
    highest = max(label_column, default=0)
    classes = [*map(str, range(min(highest, MOST_CLASSES) + 1))]
    truth = make_ground_truth(
        folder,
        names,
        label_column,
        [[int(side) for side in sizes[name]] for name in names],
        [boxes[name] for name in names],
        classes,
        masks=listed if any(objects.values()) else (),
        open_classes=True,
    )
    return truth if masks is None or truth.masks else with_masks(truth, masks)


def _known_lines(
    file: Path, columns: Sequence[int], names: Sequence[str]
) -> Iterator[tuple[int, str, list[str]]]:
    """Yields the lines of images in `names`, spelled as in `names`. Other lines are left out."""
    lines = read_rows(file, *columns)
    known = KnownNames(names, (fields[0] for _, fields in lines))
    for row, (name, *fields) in lines:
        with naming(f"{file}, line {row}"):
            own = known.find(name)
        if own is not None:
            yield row, own, fields


def _table(file: Path, columns: int, names: Sequence[str]) -> Mapping[str, list[float]]:
    table: dict[str, list[float]] = {}
    for row, name, fields in _known_lines(file, (columns + 1,), names):
        if name in table:
            raise ValueError(f"{file}, line {row}: image {name} is listed twice")
        table[name] = _numbers(file, row, fields)
        if any(value % 1 for value in table[name]):
            raise ValueError(f"{file}, line {row}: expected whole numbers")
    for name in names:
        if name not in table:
            raise ValueError(f"{file}: no line for image {name}")
    return table


def _numbers(file: Path, row: int, fields: Sequence[str]) -> list[float]:
    with naming(f"{file}, line {row}"):
        return [number(field) for field in fields]
