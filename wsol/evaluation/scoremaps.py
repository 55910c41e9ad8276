"""Heatmaps that other programs wrote: one .npy file for each image, as the published evaluator
(clovaai/wsolevaluation) has them."""

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from wsol.annotations.ground_truth import GroundTruth
from wsol.data.text_files import inside
from wsol.evaluation.box_table import BoxTable, box_row, stack_rows
from wsol.evaluation.pixel_metrics import read_mask


def find_scoremaps(
    folder: str | Path, truth: GroundTruth, known: Collection[str] = ()
) -> list[Path]:
    """The map of each image: <folder>/<image>.npy, the image's own suffix kept or not.

    Args:
        known: Images that may have a map though they are not in `truth`.

    Raises:
        ValueError: an image has no map, or a map no image; names them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    there = {
        (Path(place) / file).relative_to(folder).as_posix()
        for place, _, files in os.walk(folder, followlinks=True)
        for file in files
        if file.endswith(".npy")
    }
    found = []
    for name in truth.names:
        own = [spelling for spelling in dict.fromkeys(_spellings(name)) if spelling in there]
        if len(own) > 1:
            raise ValueError(f"{folder} has two maps of {name}: {own[0]} and {own[1]}")
        found.append(own[0] if own else None)
    missing = [name for name, file in zip(truth.names, found, strict=True) if file is None]
    if missing:
        raise ValueError(f"{folder} has no map for {_some(missing)}")
    if len(set(found)) < len(found):
        raise ValueError(f"{folder}: two images share one map; name maps <image>.jpg.npy")
    strange = there - {s for name in (*truth.names, *known) for s in _spellings(name)}
    if strange:
        raise ValueError(f"{folder} has maps of no known image: {_some(sorted(strange))}")
    return [folder / file for file in found]


def any_scoremap(folder: str | Path, truth: GroundTruth) -> bool:
    """Whether any image of the split has a map."""
    return any((Path(folder) / s).is_file() for name in truth.names for s in _spellings(name))


def _spellings(name: str) -> tuple[str, str]:
    below = inside("", name)
    return f"{name}.npy", below.with_suffix(".npy").as_posix()


def read_scoremap(file: Path) -> np.ndarray:
    """float (H,W) in [0,1].

    Raises:
        ValueError: the file is no such array; names it.
    """
    try:
        heatmap = np.load(file, allow_pickle=False)
    except Exception as error:  # a damaged file makes NumPy raise almost anything
        raise ValueError(f"cannot read map {file}: {error}") from error
    if not isinstance(heatmap, np.ndarray) or heatmap.dtype.kind != "f":
        kind = getattr(heatmap, "dtype", "an archive")
        raise ValueError(f"map {file} holds {kind}, not floating-point numbers in [0,1]")
    return heatmap


class _ScoreMaps(Dataset):
    """Items are what `box_row` keeps of each map."""

    def __init__(
        self, files: list[Path], truth: GroundTruth, edges: np.ndarray | None, every_box: bool
    ) -> None:
        self.files, self.truth = files, truth
        self.edges, self.every_box = edges, every_box

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> BoxTable:
        heatmap, truth = read_scoremap(self.files[index]), self.truth
        mask = None
        if truth.masks and self.edges is not None and heatmap.ndim == 2:
            mask = read_mask(truth.masks[index], heatmap.shape, truth.sizes[index])
        boxes = truth.boxes[index] if self.every_box and truth.boxes.size else None
        try:
            return box_row(
                heatmap, truths=boxes, size=truth.sizes[index], mask=mask, edges=self.edges
            )
        except ValueError as error:
            raise ValueError(f"map {self.files[index]}: {error}") from error


def tabulate_scoremaps(
    files: list[Path],
    truth: GroundTruth,
    *,
    edges: np.ndarray | None,
    every_box: bool = True,
    workers: int = 2,
    description: str = "maps",
) -> BoxTable:
    """Read each map once and keep a few KB of it.

    Args:
        files: One for each row of `truth`, from `find_scoremaps`.
        edges: `pixels.bin_edges`, used where `truth` has masks; None leaves masks alone.
        every_box: Also what MaxBoxAccV2 needs, for about twice the time.
        workers: Processes, which share nothing but the list of files; 0 reads in this one.
    """
    dataset = _ScoreMaps(files, truth, edges, every_box)
    loader = DataLoader(
        dataset,
        16,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_use_one_core,
    )
    with tqdm(total=len(files), desc=description, unit="map", leave=False) as bar:

        def rows():
            for batch in loader:
                yield from batch
                bar.update(len(batch))

        return stack_rows(rows())


def _use_one_core(_: int) -> None:
    torch.set_num_threads(1)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
