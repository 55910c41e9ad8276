"""Measure the speed of this project's main steps:

    benchmark.py boxes                    boxes of a heatmap, compared with OpenCV at each threshold
    benchmark.py scoremaps --metadata DIR reading and scoring synthetic maps of a split
    benchmark.py train                    a training step of each objective
    benchmark.py attack                   an attack on maps, in batches and one image at a time
    benchmark.py loader --data.root DIR   loading training images

Times are medians, and ratios compare times of the same run. Let nothing else run meanwhile.
"""

import sys
import tempfile
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from robust_training.attacks.map_attack import MapAttack
from robust_training.attacks.pgd import PGD
from wsol.annotations.metadata import read_ground_truth
from wsol.benchmarks.attack import time_attack
from wsol.benchmarks.boxes import read_maps, time_boxes
from wsol.benchmarks.loader import time_loader
from wsol.benchmarks.scoremaps import time_scoremaps
from wsol.benchmarks.synthetic_maps import synthetic_maps
from wsol.benchmarks.timing import report
from wsol.benchmarks.training_step import OBJECTIVES, time_training_steps
from wsol.cli.parser import Parser, find_device, run
from wsol.data.loaders import DataConfig


def _parser(command: str, description: str) -> Parser:
    parser = Parser(prog=f"benchmark.py {command}", description=description)
    parser.add_argument("--output", type=str | None, default=None, help="JSON file")
    return parser


def boxes(arguments: list[str]) -> None:
    parser = _parser(
        "boxes",
        "All 1,000 thresholds of a map: the boxes of the largest contours, and the best IoU of all "
        "contours' boxes, compared with OpenCV at every threshold.",
    )
    parser.add_argument("--maps", type=str | None, default=None, help=".npz of uint8 <name>_map")
    parser.add_argument("--size", type=PositiveInt, default=224, help="side of synthetic maps")
    parser.add_argument("--repeats", type=PositiveInt, default=5)
    settings = parser.parse_args(arguments)
    given = settings.maps
    maps = synthetic_maps(settings.size) if given is None else read_maps(Path(given))
    report(time_boxes(maps, settings.repeats), settings.output)


def scoremaps(arguments: list[str]) -> None:
    parser = _parser("scoremaps", "Writes synthetic maps for a split, then reads and scores them.")
    parser.add_argument("--metadata", type=str, required=True, help="as evaluate.py scoremaps")
    parser.add_argument("--size", type=PositiveInt, default=224)
    parser.add_argument("--workers", type=list[int], default=[1, 2], help="numbers to compare")
    parser.add_argument("--folder", type=str | None, default=None, help="for the maps, kept")
    settings = parser.parse_args(arguments)
    truth = read_ground_truth(settings.metadata, "test")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(settings.folder or scratch)
        rows = time_scoremaps(truth, folder, settings.size, settings.workers)
    report(rows, settings.output)


def train(arguments: list[str]) -> None:
    parser = _parser(
        "train", "A training step of each objective, as a multiple of the Standard step."
    )
    parser.add_argument("--model", type=str, default="resnet50", help="any timm name")
    parser.add_argument("--size", type=PositiveInt, default=96)
    parser.add_argument("--batch", type=PositiveInt, default=8)
    parser.add_argument("--classes", type=PositiveInt, default=200)
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--objectives", type=list[str], default=list(OBJECTIVES))
    parser.add_argument("--precision", type=str, default="32-true", help="as Fabric's")
    parser.add_argument("--tf32", type=bool, default=False)
    parser.add_argument("--channels_last", type=bool, default=False)
    parser.add_argument("--repeats", type=PositiveInt, default=5)
    settings = parser.parse_args(arguments)
    device = find_device(settings.device)
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = settings.tf32
    rows = time_training_steps(
        settings.objectives,
        model=settings.model,
        size=settings.size,
        batch=settings.batch,
        classes=settings.classes,
        device=device,
        precision=settings.precision,
        channels_last=settings.channels_last,
        repeats=settings.repeats,
    )
    report(rows, settings.output)


def attack(arguments: list[str]) -> None:
    parser = _parser(
        "attack",
        "An attack on the maps of random images, in batches and one image at a time, from the same "
        "start.",
    )
    parser.add_argument("--model", type=str, default="mobilenetv2_100", help="any timm name")
    parser.add_argument("--size", type=PositiveInt, default=64)
    parser.add_argument("--images", type=PositiveInt, default=32)
    parser.add_argument("--batch", type=PositiveInt, default=32)
    parser.add_argument("--singles", type=NonNegativeInt, default=4, help="images timed one by one")
    parser.add_argument("--attack", type=MapAttack, default=MapAttack(PGD(random_start=False)))
    parser.add_argument("--device", type=str, default="cpu")
    settings = parser.parse_args(arguments)
    rows = time_attack(
        parser.instantiate(settings).attack,
        model=settings.model,
        size=settings.size,
        images=settings.images,
        batch=settings.batch,
        singles=settings.singles,
        device=find_device(settings.device),
    )
    report(rows, settings.output)


def loader(arguments: list[str]) -> None:
    parser = _parser("loader", "Training images per second that the loader reads and augments.")
    parser.add_argument("--data", type=DataConfig, required=True, help="as in a config")
    settings = parser.parse_args(arguments)
    report([time_loader(parser.instantiate(settings).data)], settings.output)


_COMMANDS = {
    "boxes": boxes,
    "scoremaps": scoremaps,
    "train": train,
    "attack": attack,
    "loader": loader,
}


def main() -> None:
    command = _COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if command is None:
        parser = Parser(prog="benchmark.py", description=__doc__)
        parser.add_argument("command", choices=list(_COMMANDS))
        parser.parse_args(sys.argv[1:])
    else:
        command(sys.argv[2:])


if __name__ == "__main__":
    run(main)
