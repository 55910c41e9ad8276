"""Reads heatmaps of other programs: a .npy file for each image, in the layout of the published
evaluator (clovaai/wsolevaluation)."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from robust_training.progress import Progress
from wsol.annotations.ground_truth import GroundTruth
from wsol.data.loaders import loader_processes
from wsol.data.names import path_below
from wsol.evaluation.box_table import BoxTable, split_row, stack_rows


def find_scoremaps(
    folder: str | Path, truth: GroundTruth, known: Collection[str] = ()
) -> list[Path]:
    """Finds the map of each image: <folder>/<image>.npy, with or without the image's own suffix.
    Raises ValueError, which names them, if an image has no map, or a map is of no image of `truth`
    or `known`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    present = {
        (Path(place) / file).relative_to(folder).as_posix()
        for place, _, files in os.walk(folder, followlinks=True)
        for file in files
        if file.endswith(".npy")
    }
    found = []
    for name in truth.names:
        own = _maps(folder, name)
        if len(own) > 1:
            raise ValueError(f"{folder} has two maps of {name}: {own[0]} and {own[1]}")
        found.append(own[0] if own else None)
    missing = [name for name, file in zip(truth.names, found, strict=True) if file is None]
    if missing:
        raise ValueError(f"{folder} has no map for {_some(missing)}")
    if len(set(found)) < len(found):
        raise ValueError(f"{folder}: two images share one map; name maps <image>.jpg.npy")
    strange = present.difference(found, *(_maps(folder, name) for name in known))
    if strange:
        raise ValueError(f"{folder} has maps of no known image: {_some(sorted(strange))}")
    return [folder / file for file in found]


def any_scoremap(folder: str | Path, truth: GroundTruth) -> bool:
    """Whether any image of the split has a map."""
    return any(_maps(Path(folder), name) for name in truth.names)


def _maps(folder: Path, name: str) -> list[str]:
    """Finds the maps of an image, relative to the folder: <name>.npy, also without its suffix."""
    spellings = dict.fromkeys((f"{name}.npy", str(Path(name).with_suffix(".npy"))))
    files = [path_below(folder, spelling) for spelling in spellings]
    return [file.relative_to(folder).as_posix() for file in files if file.is_file()]


def read_scoremap(file: Path) -> np.ndarray:
    """Reads a heatmap, floating point (H,W). Its values are checked when boxes are computed. Raises
    ValueError if the file is not an array of floating-point numbers. The message names the file."""
    try:
        heatmap = np.load(file, allow_pickle=False)
    except Exception as error:  # a damaged file makes NumPy raise almost anything
        raise ValueError(f"cannot read map {file}: {error}") from error
    if not isinstance(heatmap, np.ndarray) or heatmap.dtype.kind != "f":
        kind = getattr(heatmap, "dtype", "an archive")
        raise ValueError(f"map {file} holds {kind}, not floating-point numbers in [0,1]")
    return heatmap


@dataclass(frozen=True)
class _ScoreMaps(Dataset):
    """Rows of the box table, read from the files by loader processes."""

    files: list[Path]
    truth: GroundTruth
    edges: np.ndarray | None
    every_box: bool

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> BoxTable:
        heatmap = read_scoremap(self.files[index])
        try:
            return split_row(heatmap, self.truth, index, edges=self.edges, every_box=self.every_box)
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
    """Reads each map once and keeps its row of the box table.

    Args:
        files: A file for each image of `truth`, from `find_scoremaps`.
        edges: From `bin_edges`, for pixel metrics if `truth` has masks. If None, masks are not
            read.
        every_box: Whether to keep the data for MaxBoxAccV2. This takes about twice the time.
        workers: Number of loader processes. 0 reads in this process.
    """
    loader = DataLoader(
        _ScoreMaps(files, truth, edges, every_box),
        16,
        num_workers=loader_processes(workers),
        collate_fn=list,
        worker_init_fn=_use_one_core,
    )
    rows: list[BoxTable] = []
    with Progress(total=len(files), desc=description, unit="map", leave=False) as bar:
        for batch in loader:
            rows += batch
            bar.update(len(batch))
    return stack_rows(rows)


def _use_one_core(_: int) -> None:
    torch.set_num_threads(1)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
