"""Finds boxes in images: `python tools/localize.py RUN IMAGE_OR_FOLDER ... --output DIR`.

Writes DIR/boxes.json (a COCO data set whose annotations have scores), DIR/boxes.csv, and for each
image an overlay and a heatmap as PNG. File names in boxes.json are relative to `info.root` there.
RUN is a run folder, any timm model folder, or a detector's folder (of train_detector.py). Detectors
give no heatmaps. A Regressor predicts no classes; its boxes have the class "object". An image that
cannot be read is skipped; skipped images and pictures that cannot be written are listed at the end.
The exit status is 0 if all is written, 1 if something is listed, 2 after a mistake that stops the
command.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from wsol.cli.parser import DEVICE, DEVICES, METHODS, Parser, output_folder, printable

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from wsol.localizer.localization import Localization
    from wsol.localizer.localizer import Localizer

_SKIPPED = "skipped"


def main(arguments: list[str]) -> int:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("model", help="run, model folder, detector, .onnx, .pt2 or hub id")
    add("images", nargs="+", help="image files or folders of them")
    add("--output", type=str, required=True, help="folder for the results")
    add("--method", type=str, help=f"default: refined gradient; {METHODS}")
    add(
        "--threshold",
        type=ClosedUnitInterval | None,
        help="fraction of the heatmap's maximum; default: chosen on the run's own images",
    )
    add("--label", type=str, help="class to look for; default: the predicted")
    add("--boxes", type=PositiveInt, default=1, help="largest number of boxes in each image")
    add("--pictures", type=bool, default=True, help="write overlays and heatmaps")
    add("--batch_size", type=PositiveInt, default=32)
    add("--device", type=str, default=DEVICE)
    add("--devices", type=PositiveInt | None, help=DEVICES)
    settings = parser.parse_args(arguments)

    from robust_training.training.processes import gather
    from wsol.annotations.box_files import write_boxes
    from wsol.boxes.plausibility import doubt
    from wsol.cli.devices import launch
    from wsol.localizer.exported_program import is_program
    from wsol.localizer.localizer import Localizer

    output = output_folder(settings.output)
    files = _find_files([Path(image) for image in settings.images], without=output)
    root = os.path.commonpath([os.path.abspath(file.parent) for file in files])
    if settings.device == DEVICE and is_program(Path(settings.model)):
        settings.device = "cpu"  # the only one that exported programs run on
    device, fabric = launch(settings.device, settings.devices)
    localizer = Localizer.load(settings.model, settings.method, settings.threshold, device=device)
    started = time.perf_counter()
    parts = gather(fabric, lambda: _localize_part(localizer, files, root, settings, fabric))
    if parts is None:  # this is not the first process
        return 0
    place = {file: number for number, file in enumerate(files)}
    found = sorted(chain(*(each for each, _ in parts)), key=lambda each: place[each.path])
    problems = [problem for _, each in parts for problem in each]
    count = write_boxes(found, localizer.class_names, output, root)
    rate = count / (time.perf_counter() - started)
    at = "" if localizer.threshold is None else f" at threshold {localizer.threshold:g}"
    skipped = sum(problem.startswith(_SKIPPED) for problem in problems)
    print(f"{count} image(s) localized{at}, {skipped} skipped, {rate:.3g} images/s: {output}")
    said = doubt([each.box for each in found], [each.size for each in found])
    if said is not None:
        print(f"note: {said}")
    for problem in sorted(problems, key=lambda each: not each.startswith(_SKIPPED)):
        print(printable(problem), file=sys.stderr)
    return 1 if problems else 0


def _localize_part(
    localizer: "Localizer",
    files: list[Path],
    root: str,
    settings: Namespace,
    fabric: "Fabric | None",
) -> tuple[list["Localization"], list[str]]:
    """Localizes this process's batches, and writes their pictures. Returns the boxes, without
    heatmaps; and a line for each image that was skipped or has no pictures."""
    from robust_training.progress import Progress
    from robust_training.training.processes import rank_and_world
    from wsol.annotations.box_files import with_pictures

    rank, world = rank_and_world(fabric)
    size, problems = settings.batch_size, []
    own = [f for n in range(rank * size, len(files), world * size) for f in files[n : n + size]]

    def skip(error: ValueError) -> None:
        problems.append(f"{_SKIPPED}: {error}")

    with Progress(own, unit="image", disable=rank > 0) as bar:
        found = localizer.predict(
            _with_unicode_names(bar, skip),
            label=settings.label,
            boxes=settings.boxes,
            batch_size=size,
            on_unreadable=skip,
        )
        if settings.pictures:
            found = with_pictures(
                found, settings.output, root, lambda error: problems.append(f"not written: {error}")
            )
        return [replace(each, heatmap=None) for each in found], problems


def _with_unicode_names(
    files: Iterable[Path], on_skipped: Callable[[ValueError], None]
) -> Iterator[Path]:
    """The files whose names can be written to a text file."""
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError:
            on_skipped(ValueError(f"the name of {file} is no Unicode text; rename it"))
        else:
            yield file


def _find_files(sources: list[Path], *, without: Path) -> list[Path]:
    """Image files, each once: those named, and those in named folders but not in `without`."""
    from wsol.data.inputs import find_images

    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = find_images(source)
            files += [f for f in inside if not f.resolve().is_relative_to(without.resolve())]
        elif source.exists():
            files.append(source)
        else:
            raise ValueError(f"there is no image or folder {source}")
    if not files:
        raise ValueError(f"all images lie in {without}, the folder for the results")
    return list(dict.fromkeys(files))
