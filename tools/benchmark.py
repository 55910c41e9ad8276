"""Time what this project is for: `benchmark.py boxes` (heatmap to boxes against the literal OpenCV
loop), `scoremaps --metadata DIR` (a split of made-up maps), `train` (a step of each objective),
`attack` (on maps, in batches and one by one) or `loader --data.root DIR`. Medians and ratios within
a run; alone on the machine, please. See --help.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning_fabric import Fabric
from torch import nn
from tqdm import tqdm

from robust_training.attacks.map_attack import MapAttack
from robust_training.attacks.pgd import PGD
from robust_training.autograd.curvature import FiniteDifference
from robust_training.models.classifier import create_model
from robust_training.objectives import ART, AdversarialTraining, Objective, Standard
from robust_training.training.step import Step
from wsol.annotations.ground_truth import GroundTruth
from wsol.annotations.metadata import read_ground_truth
from wsol.benchmarks.opencv_reference import literal_best, literal_largest
from wsol.benchmarks.step_cost import peak_bytes, step_seconds
from wsol.benchmarks.synthetic_maps import made_up_maps, write_made_up_maps
from wsol.benchmarks.timing import median_seconds, report
from wsol.boxes.heatmap_boxes import best_of_all_boxes, cuts, largest_boxes, to_bytes
from wsol.cli.parser import Parser, find_device, run
from wsol.data.loaders import DataConfig
from wsol.evaluation.pixel_metrics import bin_edges
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scoremaps import find_scoremaps, tabulate_scoremaps
from wsol.evaluation.scores import score_heatmaps

THRESHOLDS = np.arange(0, 1, 0.001)


def boxes(arguments: list[str]) -> None:
    parser = Parser(
        prog="benchmark.py boxes",
        description="All 1,000 thresholds of a map: the boxes of the largest contours, and the "
        "best IoU of all contours' boxes, against OpenCV at every threshold.",
    )
    parser.add_argument("--maps", type=str | None, default=None, help=".npz of uint8 <name>_map")
    parser.add_argument("--size", type=PositiveInt, default=224, help="of the maps made up here")
    parser.add_argument("--repeats", type=PositiveInt, default=5)
    parser.add_argument("--output", type=str | None, default=None, help="JSON file")
    settings = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    rows = []
    for name, heatmap in tqdm(_maps(settings).items(), unit="map", leave=False):
        height, width = heatmap.shape
        truth = np.array([[width // 4, height // 4, 3 * width // 4, 3 * height // 4]])
        row: dict[str, Any] = {"map": name, "size": f"{width}x{height}"}
        for key, ours, literal in (
            ("largest", _largest, lambda h, _: literal_largest(h, THRESHOLDS)),
            ("all", _best, lambda h, t: literal_best(h, t, THRESHOLDS)),
        ):
            if not np.array_equal(ours(heatmap, truth), literal(heatmap, truth)):
                raise AssertionError(f"{name}: {key} boxes differ from OpenCV's")
            fast = median_seconds(lambda f=ours, h=heatmap, t=truth: f(h, t), 4 * settings.repeats)
            slow = median_seconds(lambda f=literal, h=heatmap, t=truth: f(h, t), settings.repeats)
            row |= {f"{key}_ms": 1e3 * fast, f"{key}_opencv_ms": 1e3 * slow}
            row |= {f"{key}_ratio": slow / fast}
        rows.append(row)
    report(rows, settings.output)


def scoremaps(arguments: list[str]) -> None:
    parser = Parser(
        prog="benchmark.py scoremaps",
        description="Writes made-up maps for a split, then reads and scores them.",
    )
    parser.add_argument("--metadata", type=str, required=True, help="as evaluate.py scoremaps")
    parser.add_argument("--size", type=PositiveInt, default=224)
    parser.add_argument("--workers", type=list[int], default=[1, 2], help="to compare")
    parser.add_argument("--folder", type=str | None, default=None, help="for the maps, kept")
    parser.add_argument("--output", type=str | None, default=None, help="JSON file")
    settings = parser.parse_args(arguments)
    truth = read_ground_truth(settings.metadata, "test")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(settings.folder or scratch)
        write_made_up_maps(folder, truth, settings.size)
        rows = [
            _time_split(folder, truth, every_box, workers)
            for every_box in (False, True)
            for workers in settings.workers
        ]
    report(rows, settings.output)


_FIRST = FiniteDifference()


def _pgd(steps: int) -> PGD:
    return PGD(2 / 255, 1.5 / 255, steps)


OBJECTIVES = {
    "Standard": Standard(),
    "PGD 3 steps": AdversarialTraining(_pgd(3)),
    "ART exact": ART(),
    "ART finite differences": ART(curvature=_FIRST, attack_curvature=_FIRST),
    "ART fast": ART(  # as configs/fast.yaml
        attack=_pgd(1),
        curvature=FiniteDifference(merged=True),
        attack_curvature=FiniteDifference(0.5),
    ),
}


def train(arguments: list[str]) -> None:
    parser = Parser(
        prog="benchmark.py train",
        description="A training step of each objective, as a multiple of the Standard step.",
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
    parser.add_argument("--output", type=str | None, default=None, help="JSON file")
    settings = parser.parse_args(arguments)
    if not set(settings.objectives) <= set(OBJECTIVES):
        raise ValueError(f"objectives to choose from are {', '.join(OBJECTIVES)}")
    device = find_device(settings.device)
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = settings.tf32
    fabric = Fabric(accelerator=device.type, devices=1, precision=settings.precision)
    torch.manual_seed(0)
    image = torch.rand(settings.batch, 3, settings.size, settings.size, device=device)
    label = torch.randint(settings.classes, (settings.batch,), device=device)
    chosen = {n: o for n, o in OBJECTIVES.items() if n in {"Standard", *settings.objectives}}
    steps = {name: _step(fabric, objective, settings) for name, objective in chosen.items()}
    replays = {name: 3 if name.startswith("ART fast") else 1 for name in steps}
    seconds = step_seconds(steps, image, label, replays=replays, repeats=settings.repeats)
    memory = {name: peak_bytes(step, image, label) for name, step in steps.items()}
    rows = []
    for name in steps:
        step = float(np.median(seconds[name]))
        ratio = float(np.median(seconds[name] / seconds["Standard"]))
        row = {"objective": name, "step_s": step, "ratio": ratio}
        row |= {"images_per_s": settings.batch / step, "memory_mb": memory[name] / 1e6}
        rows.append(row | {"memory_ratio": memory[name] / memory["Standard"]})
    report(rows, settings.output)


def _step(fabric: Fabric, objective: Objective, settings: Namespace) -> nn.Module:
    torch.manual_seed(0)
    model = create_model(settings.model, settings.classes, image_size=settings.size)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    return fabric.setup_module(Step(model, objective))


def loader(arguments: list[str]) -> None:
    parser = Parser(
        prog="benchmark.py loader",
        description="Training images per second that the loader reads and augments.",
    )
    parser.add_argument("--data", type=DataConfig, required=True, help="as in a config")
    parser.add_argument("--output", type=str | None, default=None, help="JSON file")
    settings = parser.parse_args(arguments)
    data = parser.instantiate(settings).data
    start = time.perf_counter()
    images = data.training_loader()
    opened = time.perf_counter() - start
    for _ in images:  # the first epoch warms up
        pass
    start = time.perf_counter()
    count = sum(len(batch["label"]) for batch in images)
    seconds = time.perf_counter() - start
    rows = [{"opening_s": opened, "images": count, "images_per_s": count / seconds}]
    report(rows, settings.output)


def attack(arguments: list[str]) -> None:
    parser = Parser(
        prog="benchmark.py attack",
        description="An attack on the maps of made-up images, in batches and one image at a time, "
        "from the same start.",
    )
    parser.add_argument("--model", type=str, default="mobilenetv2_100", help="any timm name")
    parser.add_argument("--size", type=PositiveInt, default=64)
    parser.add_argument("--images", type=PositiveInt, default=32)
    parser.add_argument("--batch", type=PositiveInt, default=32)
    parser.add_argument("--singles", type=NonNegativeInt, default=4, help="images timed one by one")
    parser.add_argument("--attack", type=MapAttack, default=MapAttack(PGD(random_start=False)))
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--output", type=str | None, default=None, help="JSON file")
    settings = parser.parse_args(arguments)
    device, mount = find_device(settings.device), parser.instantiate(settings).attack
    torch.manual_seed(0)
    model = create_model(settings.model, 10, image_size=settings.size).to(device).eval()
    nn.init.normal_(model.backbone.get_classifier().weight)
    image = torch.rand(settings.images, 3, settings.size, settings.size, device=device)
    label = torch.arange(settings.images, device=device) % 10

    def seconds_each(images: int, batch: int) -> float:
        start = time.perf_counter()
        for rows in torch.arange(images).split(batch):
            mount(model, image[rows], label[rows]).intersection.cpu()
        return (time.perf_counter() - start) / images

    seconds_each(settings.batch, settings.batch)  # compiles kernels
    rows = [{"batch": settings.batch, "s_per_image": seconds_each(settings.images, settings.batch)}]
    if settings.singles:
        rows.append({"batch": 1, "s_per_image": seconds_each(settings.singles, 1)})
    rows = [row | {"ratio": row["s_per_image"] / rows[0]["s_per_image"]} for row in rows]
    report(rows, settings.output)


def _time_split(folder: Path, truth: GroundTruth, every_box: bool, workers: int) -> dict[str, Any]:
    start, edges = time.perf_counter(), bin_edges(THRESHOLDS)
    files = find_scoremaps(folder, truth)
    maps = tabulate_scoremaps(files, truth, edges=edges, every_box=every_box, workers=workers)
    read = time.perf_counter() - start
    score_heatmaps(SplitOutput(truth, None, {"maps": maps}), thresholds=THRESHOLDS)
    seconds = time.perf_counter() - start
    return {
        "maps": len(truth),
        "MaxBoxAccV2": every_box,
        "workers": workers,
        "reading_s": read,
        "total_s": seconds,
        "maps_per_s": len(truth) / seconds,
    }


def _largest(heatmap: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return largest_boxes(heatmap, THRESHOLDS)


def _best(heatmap: np.ndarray, truth: np.ndarray) -> np.ndarray:
    pixels = to_bytes(heatmap)
    return best_of_all_boxes(pixels, truth)[cuts(THRESHOLDS, pixels.max())]


def _maps(settings: Namespace) -> dict[str, np.ndarray]:
    if settings.maps is None:
        return made_up_maps(settings.size)
    try:
        with np.load(settings.maps) as archive:
            keys = [key for key in archive if key.endswith("_map")]
            return {key.removesuffix("_map"): archive[key] / 255.0 for key in keys}
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read maps {settings.maps}: {error}") from error


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
